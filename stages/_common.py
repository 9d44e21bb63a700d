"""What every stage shares: its options, and errors as one line."""

import ctypes
import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer

from ocd_core.errors import UserError

TaskOption = Annotated[str, typer.Option(help="A task: the name of a file params/<task>.yaml.")]
SeedOption = Annotated[int, typer.Option(help="Seed of everything random from the base network on.")]
RankOption = Annotated[int, typer.Option(help="Which layer moves: 1 is the selected one, 2 the next best.")]
DEFAULT_TASK = "mnist5k"


# mallopt's parameters (malloc.h) and the most that is kept
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _KEEP_BYTES = -1, -3, 2**30


def keep_freed_memory() -> None:
    """Have glibc reuse freed blocks of up to 1 GiB, which by default go back to the system; elsewhere do nothing.

    Fetching every large temporary anew, page by page, takes half of the time that a rendered view takes.
    """
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(_MMAP_THRESHOLD, _KEEP_BYTES)
        libc.mallopt(_TRIM_THRESHOLD, _KEEP_BYTES)


def run(main: Callable[..., Any]) -> None:
    """Run a stage's `main` as a command line; a user's mistake becomes one line and exit status 1."""
    keep_freed_memory()
    try:
        typer.run(main)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
