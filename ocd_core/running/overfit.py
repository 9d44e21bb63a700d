"""Overfit each sample of a split separately and store Δ, I(x), ρ and the losses (Alg. 1, lines 1-5)."""

from collections.abc import Sequence
from dataclasses import replace

from ocd_core._version import __version__
from ocd_core.artifacts import read_json
from ocd_core.files import sha256_file
from ocd_core.fingerprint import digest
from ocd_core.overfit.build import build_store
from ocd_core.overfit.executors import SERIAL, Execution
from ocd_core.overfit.workers import Recipe
from ocd_core.progress import progress_bar
from ocd_core.provenance import Lineage
from ocd_core.samples import SPLITS, SplitName
from ocd_core.tasks.overlap import SHARED_ROWS
from ocd_core.timing import Stopwatch


def run(
    lineage: Lineage,
    splits: Sequence[SplitName] = SPLITS,
    device: str = "cpu",
    execution: Execution = SERIAL,
    url: str | None = None,
) -> None:
    """Write data/<task>/seed<k>/rank<r>/overfit/<split>.zarr; shards that are there already are kept.

    How shards are run is not a parameter, because it does not change them.

    Args:
        url: write below this fsspec URL instead.
    """
    lineage.check("overfit")
    run = lineage.artifacts
    shared = f"refinement-{run.task}-seed{run.seed}-rank{run.rank}-{'-'.join(splits)}.safetensors"
    watch = Stopwatch()  # what refines Δ in all splits counts for the first
    with Recipe(run, lineage.params, "train", device).with_refinement(shared) as recipe:
        for split in splits:
            build(lineage, replace(recipe, split=split), execution, url, watch)
            watch = Stopwatch()


def build(lineage: Lineage, recipe: Recipe, execution: Execution, url: str | None, watch: Stopwatch) -> None:
    """Make the store of one split, below `url` if given, and record how long that took by the watch."""
    artifacts, split = recipe.artifacts, recipe.split
    builder = recipe.builder()
    rows = builder.task.identity(artifacts.prepared, split)
    about = {
        "task": artifacts.task,
        "split": split,
        "seed": artifacts.seed,
        "rank": artifacts.rank,
        "layer": builder.model.layer_name,
        "base_sha256": sha256_file(artifacts.base / "model.safetensors"),
        "made": lineage.made_by("overfit"),
        **({} if rows is None else {"rows_digest": rows}),
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
        progress(builder.rows, "" if made else "was complete")
    if url is None and made:  # the time of a store that was complete before stays
        how = {"executor": execution.executor, "workers": execution.workers, "threads": 1}  # threads of a worker
        watch.write(artifacts, "overfit", recipe.device, split, rows=made, resumed=made < builder.rows, **how)
