"""What all stages share: their options, and errors printed as one line."""

import os
import sys
from collections.abc import Callable
from typing import Annotated, Any

import typer

from ocd_core.allocator import keep_freed_memory
from ocd_core.errors import UserError

TaskOption = Annotated[str, typer.Option(help="A task: the name of a file params/<task>.yaml.")]
SeedOption = Annotated[int, typer.Option(help="Seed of everything random, starting with the base network.")]
RankOption = Annotated[int, typer.Option(help="Which layer moves: 1 is the selected layer, 2 the next best.")]
DeviceOption = Annotated[str, typer.Option(envvar="OCD_DEVICE", help="cpu or cuda.")]
DEFAULT_TASK = "mnist5k"


def run(main: Callable[..., Any], shared: bool = False) -> None:
    """Run a stage's `main` as a command line; a `UserError` is printed as one line and gives exit status 1.

    shared: whether several processes (of `torchrun`) may run it together.
    """
    try:
        if not shared and int(os.environ.get("WORLD_SIZE", "1")) > 1:
            raise UserError("this stage runs in one process: start it with python -m, not with torchrun")
        keep_freed_memory()
        typer.run(main)
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(1)
