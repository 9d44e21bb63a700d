"""How a training is followed: a progress bar, and its curve drawn live by dvclive."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from ocd_core.progress import Progress, progress_bar
from ocd_core.training.loop import ALONE, Row
from ocd_core.training.processes import Processes

Callbacks = tuple[Progress, Callable[[Row], None]] | tuple[None, None]


@contextmanager
def followed(description: str, updates: int, live: Path, processes: Processes = ALONE) -> Iterator[Callbacks]:
    """Functions for `optimise` to call after each update and with each row; none but in the main process.

    The rows go to `<live>/plots/metrics/<name>.tsv`, one file a column, by the number of the update. The folder is
    for looking while the training runs: it starts empty, also where a run goes on, since the rows of the checkpoint
    come again. `dvc plots` shows its files by name; they are no artifact (`curve.tsv` is).
    """
    if not processes.is_main:
        yield None, None
        return
    log: Any = None
    with ExitStack() as stack, progress_bar(description, updates) as progress:

        def on_row(row: Row) -> None:
            nonlocal log
            if log is None:  # not before: it takes a second and a half to import and to open
                from dvclive import Live

                # no dvc.yaml of its own, and an experiment is saved by `dvc exp run`
                log = stack.enter_context(Live(str(live), resume=False, report=None, save_dvc_exp=False, dvcyaml=None))
            log.step = int(row["update"])
            for name, value in row.items():
                if name != "update":
                    log.log_metric(name, value)
            log.next_step()

        yield progress, on_row
