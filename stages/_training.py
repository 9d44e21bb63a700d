"""Follow a training: a progress bar, and its curve written live by dvclive."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from ocd_core.progress import progress_bar
from ocd_core.running.following import Callbacks
from ocd_core.training.loop import ALONE, Row
from ocd_core.training.processes import Processes


@contextmanager
def followed(description: str, updates: int, live: Path, processes: Processes = ALONE) -> Iterator[Callbacks]:
    """Functions that `optimise` calls after each update and with each row; None outside the main process.

    The rows go to `<live>/plots/metrics/<name>.tsv`, one file per column, indexed by the update. The folder is only
    for watching the training: it starts empty even if a run resumes, because the rows of the checkpoint come again.
    `dvc plots` shows its files by name; they are not an artifact (`curve.tsv` is).
    """
    if not processes.is_main:
        yield None, None
        return
    log: Any = None
    with ExitStack() as stack, progress_bar(description, updates) as progress:

        def on_row(row: Row) -> None:
            nonlocal log
            if log is None:  # not earlier: importing and opening it takes a second and a half
                from dvclive import Live

                # no separate dvc.yaml, and `dvc exp run` saves the experiment
                log = stack.enter_context(Live(str(live), resume=False, report=None, save_dvc_exp=False, dvcyaml=None))
            log.step = int(row["update"])
            for name, value in row.items():
                if name != "update":
                    log.log_metric(name, value)
            log.next_step()

        yield progress, on_row
