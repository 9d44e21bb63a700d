"""What all stages share: their options, and errors printed as one line."""

import os
from collections.abc import Callable
from functools import wraps
from typing import Annotated, Any

import typer

from ocd_core.allocator import keep_freed_memory
from ocd_core.artifacts import Artifacts
from ocd_core.errors import UserError
from ocd_core.terminal import errors_as_lines
from ocd_core.timing import recorded

TaskOption = Annotated[str, typer.Option(help="A task: the name of a file params/<task>.yaml.")]
SeedOption = Annotated[int, typer.Option(help="Seed of everything random, starting with the base network.")]
RankOption = Annotated[int, typer.Option(help="Which layer moves: 1 is the selected layer, 2 the next best.")]
DeviceOption = Annotated[str, typer.Option(envvar="OCD_DEVICE", help="cpu or cuda.")]
DEFAULT_TASK = "mnist5k"


def run(main: Callable[..., Any], stage: str | None = None, shared: bool = False) -> None:
    """Run a stage's `main` as a command line; what a user can mend is printed as one line and gives exit status 1.

    Args:
        stage: record under this name how long `main` took, with the plain values that it returns, if any.
        shared: whether several processes (of `torchrun`) may run it together.
    """
    with errors_as_lines():
        if not shared and int(os.environ.get("WORLD_SIZE", "1")) > 1:
            raise UserError("this stage runs in one process: start it with python -m, not with torchrun")
        keep_freed_memory()
        typer.run(main if stage is None else _with_time(main, stage))


def _with_time(main: Callable[..., Any], stage: str) -> Callable[..., None]:
    """`main` with the same options, which records how long it took."""

    @wraps(main)
    def timed(**options: Any) -> None:
        artifacts = Artifacts(options["task"], options.get("seed", 0), options.get("rank", 1))
        recorded(lambda: main(**options), artifacts, stage, options.get("device", "cpu"))

    return timed
