"""Train the scale network ρ(x, I(x)) on the norms of the training samples' Δ (Eq. 8).

If the diffusion's representation of Δ has no scale of its own, nothing would use the network, so there is none.
"""

import torch

from ocd_core.artifacts import write_json, write_table, write_text
from ocd_core.codes.representations import representation_class
from ocd_core.provenance import Lineage
from ocd_core.running.following import Follow, with_bar
from ocd_core.running.work import work_folder
from ocd_core.scale.comparison import compare_scales
from ocd_core.scale.network import UNUSED, save_unused
from ocd_core.scale.training import train_scale
from ocd_core.store import OverfitStore
from ocd_core.training.devices import local_device
from ocd_core.training.loop import ALONE


def run(lineage: Lineage, device: str = "cpu", follow: Follow = with_bar) -> None:
    """Write data/<task>/seed<k>/rank<r>/scale.

    The device is not a parameter: it changes the result only within rounding.
    """
    place = local_device(device)
    params, artifacts = lineage.params, lineage.artifacts
    lineage.check("train_scale")
    train = OverfitStore(artifacts.overfit("train"))
    representation = representation_class(params.diffusion.representation.name)
    if not representation.uses_scale:
        write_unused(lineage, train, f"the representation {representation.name} has no scale of its own")
        return
    val = OverfitStore(artifacts.overfit("val"))
    updates = params.scale.warm_start.updates + params.scale.updates
    with work_folder(artifacts, "scale") as work:
        with follow("train scale", updates, work / "live", ALONE) as (progress, on_row):
            result = train_scale(
                train.condition(), torch.from_numpy(train.read("rho")), val.condition(),
                torch.from_numpy(val.read("rho")), params.scale, artifacts.seed, progress, on_row, place,
            )  # fmt: skip
        comparison = compare_scales(result.network, params.scale.loss, train, val, artifacts.seed)
        with lineage.write("scale") as dest:
            result.network.save(dest, params.scale, train.base)
            write_json(dest / "params.json", params.effective("scale"))
            write_json(dest / "metrics.json", result.metrics)
            write_table(dest / "curve.tsv", result.curve)
            write_table(dest / "comparison.tsv", comparison)


def write_unused(lineage: Lineage, train: OverfitStore, why: str) -> None:
    """Write the same files, which say that there is no network; the tables have the columns of DVC's plots, no rows."""
    print(f"train scale: nothing to do, because {why}")
    with lineage.write("scale") as dest:
        save_unused(dest, why, train.base)
        write_json(dest / "params.json", lineage.params.effective("scale"))
        write_json(dest / "metrics.json", {UNUSED: why})
        write_text(dest / "curve.tsv", "update\tval_loss\n")
        write_text(dest / "comparison.tsv", "estimate\teq8_db\n")
