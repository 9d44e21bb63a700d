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


_WIDE = 120  # columns of a terminal
_TIME = len("0:00:00")


@contextmanager
def progress_bar(description: str, total: int) -> Iterator[Progress]:
    """Show a bar; the block receives a function to call with the count so far.

    On a terminal of 80 columns the bar is short and a long note is cut, but neither the count nor a time is.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar
    from rich.table import Column

    def whole(width: int) -> Column:
        return Column(min_width=width, no_wrap=True)

    console, description = _console(), plain(description)
    bar = Bar(
        TextColumn("{task.description}", markup=False, table_column=whole(len(description))),
        BarColumn(bar_width=40 if console.width >= _WIDE else 10),
        MofNCompleteColumn(table_column=whole(2 * len(str(total)) + 1)),
        TimeElapsedColumn(table_column=whole(_TIME)),
        TimeRemainingColumn(table_column=whole(_TIME)),
        TextColumn("{task.fields[note]}", markup=False),
        console=console,
    )
    with bar:
        task = bar.add_task(description, total=total, note="")

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
