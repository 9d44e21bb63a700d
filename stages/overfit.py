"""Overfit each sample of a split separately and store Δ, I(x), ρ and the losses (Alg. 1, lines 1-5)."""

from typing import Annotated

import typer

from ocd_core.errors import UserError
from ocd_core.overfit.executors import Execution
from ocd_core.provenance import Lineage
from ocd_core.running import overfit
from ocd_core.samples import SPLITS
from stages._common import DEFAULT_TASK, DeviceOption, RankOption, SeedOption, TaskOption, run

ExecutorOption = Annotated[
    str, typer.Option(envvar="OCD_EXECUTOR", help="serial, process (workers on this machine) or dask.")
]
WorkersOption = Annotated[
    int | None, typer.Option(envvar="OCD_WORKERS", help="The number of workers; by default one per GPU or core.")
]
SchedulerOption = Annotated[
    str | None, typer.Option(envvar="OCD_SCHEDULER", help="A dask scheduler, tcp://host:8786; by default, start one.")
]


def main(
    task: TaskOption = DEFAULT_TASK, seed: SeedOption = 0, rank: RankOption = 1,
    split: Annotated[str | None, typer.Option(help="train, val or test; by default all of them.")] = None,
    executor: ExecutorOption = "serial", workers: WorkersOption = None, scheduler: SchedulerOption = None,
    device: DeviceOption = "cpu",
    store: Annotated[str | None, typer.Option(help="Write below this fsspec URL (s3://bucket/run) instead.")] = None,
) -> None:  # fmt: skip
    """Write data/<task>/seed<k>/rank<r>/overfit/<split>.zarr.

    How shards are run is not a parameter, because it does not change them.
    """
    if store is not None and "://" not in store:
        raise UserError(f"--store {store}: give a URL such as s3://bucket/run, or leave it out")
    lineage = Lineage.of(task, seed, rank)
    if split is not None and split not in SPLITS:
        raise UserError(f"unknown split {split!r}; known are {', '.join(SPLITS)}")
    splits = SPLITS if split is None else tuple(s for s in SPLITS if s == split)
    overfit.run(lineage, splits, device, Execution.choose(executor, workers, scheduler), store)


if __name__ == "__main__":
    run(main)
