"""Train the base network f_θ with early stopping on validation, or load given weights."""

import sys

from ocd_core.artifacts import write_json, write_table
from ocd_core.network.fits import check_fits
from ocd_core.network.training import fit_base, seeded_network
from ocd_core.progress import progress_bar
from ocd_core.provenance import Lineage
from ocd_core.terminal import plain
from ocd_core.training.devices import local_device
from ocd_core.weights import save_weights


def run(lineage: Lineage, device: str = "cpu") -> None:
    """Write data/<task>/seed<k>/base.

    The device is not a parameter: it changes the result only within rounding.
    """
    place = local_device(device)
    params, artifacts = lineage.params, lineage.artifacts
    lineage.check("train_base")
    prepared = artifacts.prepared
    domain = params.build_task(prepared)
    train = domain.open(prepared, "train")
    if len(train):  # hours of training must not come before the discovery that the network cannot be used
        check_fits(domain, seeded_network(domain, artifacts.seed), train)
    with progress_bar("train base", params.base.epochs) as progress:
        result = fit_base(
            domain, train, domain.open(prepared, "val"), params.base, artifacts.seed, progress, device=place
        )
        if not result.metrics["epochs"]:
            progress(params.base.epochs, "given weights")
    for note in result.notes:
        print(plain(f"note: {note}"), file=sys.stderr)
    with lineage.write("base") as dest:
        save_weights(result.model, dest / "model.safetensors")
        write_json(dest / "config.json", params.effective("base"))
        write_json(dest / "metrics.json", {**result.metrics, **({"notes": list(result.notes)} if result.notes else {})})
        write_table(dest / "curve.tsv", result.curve)
