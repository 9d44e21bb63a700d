"""The folder in which a training keeps its checkpoint until its stage has ended."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ocd_core.artifacts import Artifacts, is_main_process
from ocd_core.files import locked, make_folder


@contextmanager
def work_folder(artifacts: Artifacts, name: str) -> Iterator[Path]:
    """`data/.work/<name>-<task>-seed<k>-rank<r>`, deleted if the block ends without an error; it need not exist.

    The main process holds a lock on it: two runs of a stage would write the same checkpoint.

    Args:
        name: the artifact that is being made, as in `ocd_core.pipeline`.

    Raises:
        UserError: another process makes this artifact.
    """
    work = artifacts.work / f"{name}-{artifacts.task}-seed{artifacts.seed}-rank{artifacts.rank}"
    if not is_main_process():
        yield work
        return
    make_folder(artifacts.work)
    with locked(artifacts.work / f"{work.name}.lock", str(artifacts.path(name))):
        yield work
        shutil.rmtree(work, ignore_errors=True)  # missing if the training was too short for a checkpoint
