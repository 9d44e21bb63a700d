"""Overfit every sample of a split by itself and keep Δ, I(x), ρ and losses in a store (Alg. 1, lines 1-5)."""

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated

import typer

from ocd_core import __version__
from ocd_core.artifacts import Artifacts, read_json
from ocd_core.config import load_params
from ocd_core.errors import UserError
from ocd_core.files import sha256_file
from ocd_core.fingerprint import digest, folder_content, module_code
from ocd_core.overfit.build import build_store
from ocd_core.overfit.executors import Execution
from ocd_core.overfit.workers import Recipe
from ocd_core.progress import progress_bar
from ocd_core.report.store_card import write_card
from ocd_core.samples import SPLITS
from ocd_core.store import put_folder
from stages._common import DEFAULT_TASK, DeviceOption, RankOption, SeedOption, TaskOption, run

ExecutorOption = Annotated[
    str, typer.Option(envvar="OCD_EXECUTOR", help="serial, process (workers of this machine) or dask.")
]
WorkersOption = Annotated[
    int | None, typer.Option(envvar="OCD_WORKERS", help="How many workers; one a GPU or core by default.")
]
SchedulerOption = Annotated[
    str | None, typer.Option(envvar="OCD_SCHEDULER", help="A dask scheduler, tcp://host:8786; else one starts here.")
]


def main(
    task: TaskOption = DEFAULT_TASK, seed: SeedOption = 0, rank: RankOption = 1,
    split: Annotated[str | None, typer.Option(help="train, val or test; all of them by default.")] = None,
    executor: ExecutorOption = "serial", workers: WorkersOption = None, scheduler: SchedulerOption = None,
    device: DeviceOption = "cpu",
    store: Annotated[str | None, typer.Option(help="Write below this fsspec URL (s3://bucket/run) instead.")] = None,
) -> None:  # fmt: skip
    """Write data/<task>/seed<k>/rank<r>/overfit/<split>.zarr and its card, <split>.card.

    How shards are run does not change them, so it is no param.
    """
    if store is not None and "://" not in store:
        raise UserError(f"--store {store}: give a URL such as s3://bucket/run, or leave it out")
    params = load_params(task)
    if split is not None and split not in SPLITS:
        raise UserError(f"unknown split {split!r}; known are {', '.join(SPLITS)}")
    execution = Execution.choose(executor, workers, scheduler)
    recipe = Recipe(Artifacts(task, seed, rank), params, "train", device)
    for name in SPLITS if split is None else [s for s in SPLITS if s == split]:
        build(replace(recipe, split=name), execution, store)


def build(recipe: Recipe, execution: Execution, url: str | None = None) -> None:
    """Make one split's store and card, below `url` if given."""
    artifacts, params, split = recipe.artifacts, recipe.params, recipe.split
    builder = recipe.builder()
    prepared = artifacts.prepared
    attributes = {
        "task": artifacts.task,
        "split": split,
        "seed": artifacts.seed,
        "rank": artifacts.rank,
        "layer": builder.model.layer_name,
        "config": params.effective("overfit"),
        "base_sha256": sha256_file(artifacts.base / "model.safetensors"),
        "code_version": __version__,
        "code": read_json(artifacts.need(artifacts.code, "task_code")),
        "prepared": folder_content(prepared),
    }
    fingerprint = digest([attributes, module_code("stages.overfit")])
    dest = artifacts.overfit(split) if url is None else f"{url.rstrip('/')}/{split}.zarr"
    with progress_bar(f"overfit {split}", builder.rows) as progress:
        build_store(dest, builder, attributes, fingerprint, artifacts.work, progress, recipe, execution)
    summary = read_json(prepared / "summary.json")
    if url is None:
        write_card(dest, artifacts.card(split), summary)
    else:
        with TemporaryDirectory() as folder:
            write_card(dest, Path(folder, "card"), summary)
            put_folder(Path(folder, "card"), f"{url.rstrip('/')}/{split}.card")


if __name__ == "__main__":
    run(main)
