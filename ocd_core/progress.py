"""Progress bars for long loops, on standard error: live on a terminal, a single line otherwise."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING

from ocd_core.terminal import plain

if TYPE_CHECKING:
    from rich.console import Console

# called with the number of units done (out of the total given to `progress_bar`) and a short note
Progress = Callable[[int, str], None]


@contextmanager
def progress_bar(description: str, total: int) -> Iterator[Progress]:
    """Show a bar; the block receives a function to call with the count so far."""
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    bar = Bar(
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}", markup=False),
        console=_console(),
    )
    with bar:
        task = bar.add_task(plain(description), total=total, note="")

        def update(done: int, note: str) -> None:
            bar.update(task, completed=done, note=plain(note))

        yield update


def _console() -> "Console":
    """Standard error; in a notebook, rich draws live bars with ipywidgets and complains if it lacks them."""
    from rich.console import Console

    return Console(stderr=True, force_jupyter=None if find_spec("ipywidgets") else False)


def no_progress(done: int, note: str) -> None:
    """Do nothing, for callers that want no bar."""


def part_of(progress: Progress, before: int, note: str) -> Progress:
    """The progress of one part of a loop, whose own units follow `before` others; all with the same note."""
    return lambda done, _note: progress(before + done, note)
