"""What every stage shares: its options, and errors as one line."""

import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer

from ocd_core.errors import UserError

TaskOption = Annotated[str, typer.Option(help="A task: the name of a file params/<task>.yaml.")]
SeedOption = Annotated[int, typer.Option(help="Seed of everything random from the base network on.")]
RankOption = Annotated[int, typer.Option(help="Which layer moves: 1 is the selected one, 2 the next best.")]
DEFAULT_TASK = "mnist5k"


def run(main: Callable[..., Any]) -> None:
    """Run a stage's `main` as a command line; a user's mistake becomes one line and exit status 1."""
    try:
        typer.run(main)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
