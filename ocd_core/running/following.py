"""Follow a training while it runs: a function of this type makes the callbacks that a training calls."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from ocd_core.progress import Progress, progress_bar
from ocd_core.training.loop import ALONE, Row
from ocd_core.training.processes import Processes

# called after each update and with each row of the curve; None outside the main process
Callbacks = tuple[Progress, Callable[[Row], None]] | tuple[None, None]
# (description, updates, a folder that only the training uses, the processes that train) -> the callbacks
Follow = Callable[[str, int, Path, Processes], AbstractContextManager[Callbacks]]


@contextmanager
def with_bar(description: str, updates: int, live: Path, processes: Processes = ALONE) -> Iterator[Callbacks]:
    """A progress bar, and nothing else: `live` stays empty."""
    if not processes.is_main:
        yield None, None
        return
    with progress_bar(description, updates) as progress:
        yield progress, lambda row: None
