"""Overfit each sample of a split separately and store Δ, I(x), ρ and the losses (Alg. 1, lines 1-5)."""

from dataclasses import replace
from typing import Annotated

import typer

from ocd_core import __version__
from ocd_core.artifacts import read_json
from ocd_core.errors import UserError
from ocd_core.files import sha256_file
from ocd_core.fingerprint import digest
from ocd_core.overfit.build import build_store
from ocd_core.overfit.executors import Execution
from ocd_core.overfit.workers import Recipe
from ocd_core.progress import progress_bar
from ocd_core.provenance import Lineage
from ocd_core.samples import SPLITS
from ocd_core.tasks.overlap import SHARED_ROWS
from ocd_core.timing import Stopwatch
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
    execution = Execution.choose(executor, workers, scheduler)
    lineage.check("overfit")
    names = SPLITS if split is None else [s for s in SPLITS if s == split]
    shared = f"refinement-{task}-seed{seed}-rank{rank}-{'-'.join(names)}.safetensors"
    with Recipe(lineage.artifacts, lineage.params, "train", device).with_refinement(shared) as recipe:
        for name in names:
            build(lineage, replace(recipe, split=name), execution, store)


def build(lineage: Lineage, recipe: Recipe, execution: Execution, url: str | None = None) -> None:
    """Make the store of one split, below `url` if given, and record how long that took."""
    watch = Stopwatch()
    artifacts, split = recipe.artifacts, recipe.split
    builder = recipe.builder()
    about = {
        "task": artifacts.task,
        "split": split,
        "seed": artifacts.seed,
        "rank": artifacts.rank,
        "layer": builder.model.layer_name,
        "base_sha256": sha256_file(artifacts.base / "model.safetensors"),
        "made": lineage.made_by("overfit"),
    }
    summary = read_json(artifacts.prepared / "summary.json")
    attributes = {
        **about,
        "config": recipe.params.effective("overfit"),
        "classes": builder.classes(),
        "activation_read": builder.model.activation_read,
        "code_version": __version__,
        "data": {key: summary[key] for key in ("source", "licence", SHARED_ROWS) if key in summary},
    }
    if builder.refinement is not None:
        attributes["refinement"] = {"damping": builder.refinement.damping}  # the config says the rest
    dest = artifacts.overfit(split) if url is None else f"{url.rstrip('/')}/{split}.zarr"
    with progress_bar(f"overfit {split}", builder.rows) as progress:
        made = build_store(dest, builder, attributes, digest(about), artifacts.work, progress, recipe, execution)
    if url is None and made:  # the time of a store that was complete before stays
        how = {"executor": execution.executor, "workers": execution.workers, "threads": 1}  # threads of a worker
        watch.write(artifacts, "overfit", recipe.device, split, rows=made, resumed=made < builder.rows, **how)


if __name__ == "__main__":
    run(main)
