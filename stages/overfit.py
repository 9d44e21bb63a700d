"""Overfit every sample of a split by itself and keep Δ, I(x), ρ and losses in a store (Alg. 1, lines 1-5)."""

from typing import Annotated

import typer

from ocd_core import __version__
from ocd_core.artifacts import Artifacts, read_json
from ocd_core.building import RowBuilder, build_store
from ocd_core.cards import write_card
from ocd_core.checkpoints import sha256_file
from ocd_core.config import Params, load_params
from ocd_core.errors import UserError
from ocd_core.fingerprint import digest, folder_content, module_code
from ocd_core.predictor import load_split_model
from ocd_core.progress import progress_bar
from ocd_core.tasks.base import SPLITS, SplitName
from stages._common import DEFAULT_TASK, RankOption, SeedOption, TaskOption, run


def main(
    task: TaskOption = DEFAULT_TASK, seed: SeedOption = 0, rank: RankOption = 1,
    split: Annotated[str | None, typer.Option(help="train, val or test; all of them by default.")] = None,
) -> None:  # fmt: skip
    """Write data/<task>/seed<k>/rank<r>/overfit/<split>.zarr and its card, <split>.card."""
    params = load_params(task)
    if split is not None and split not in SPLITS:
        raise UserError(f"unknown split {split!r}; known are {', '.join(SPLITS)}")
    for name in SPLITS if split is None else [s for s in SPLITS if s == split]:
        build(params, Artifacts(task, seed, rank), name)


def build(params: Params, artifacts: Artifacts, split: SplitName) -> None:
    """Make one split's store."""
    domain = params.build_task()
    model = load_split_model(artifacts, domain)
    prepared = artifacts.need(artifacts.prepared, "prepare")
    builder = RowBuilder(domain, model, domain.open(prepared, split), params.overfit, artifacts.seed)
    attributes = {
        "task": artifacts.task,
        "split": split,
        "seed": artifacts.seed,
        "rank": artifacts.rank,
        "layer": model.layer_name,
        "config": params.effective("overfit"),
        "base_sha256": sha256_file(artifacts.base / "model.safetensors"),
        "code_version": __version__,
        "code": read_json(artifacts.need(artifacts.code, "task_code")),
        "prepared": folder_content(prepared),
    }
    fingerprint = digest([attributes, module_code("stages.overfit")])
    with progress_bar(f"overfit {split}", builder.rows) as progress:
        build_store(artifacts.overfit(split), builder, attributes, fingerprint, artifacts.work, progress)
    write_card(artifacts.overfit(split), artifacts.card(split), read_json(prepared / "summary.json"))


if __name__ == "__main__":
    run(main)
