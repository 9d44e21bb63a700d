"""Fit the controls that could explain a gain without diffusion, only on the training and validation splits."""

from typing import Any

from ocd_core.artifacts import write_json, write_table
from ocd_core.evaluation.context import Fitting
from ocd_core.evaluation.fitted import fit_rows
from ocd_core.predictor import Predictor
from ocd_core.progress import progress_bar
from ocd_core.provenance import Lineage
from ocd_core.training.devices import local_device


def run(lineage: Lineage, device: str = "cpu") -> dict[str, Any]:
    """Write data/<task>/seed<k>/rank<r>/controls, and return how long each row took to fit.

    The device is not a parameter: it changes the result only within rounding.
    """
    place = local_device(device)
    params, artifacts = lineage.params, lineage.artifacts
    lineage.check("train_controls")
    predictor = Predictor.from_run(artifacts, params, with_gain=False, device=place)  # the gain is chosen here
    fitting = Fitting(artifacts, params, predictor)
    names = params.controls.fit
    with progress_bar("train controls", len(names)) as progress:
        begun = 0

        def started(name: str) -> None:
            nonlocal begun
            progress(begun, name)
            begun += 1

        result = fit_rows(fitting, started)
        progress(len(names), "")
    with lineage.write("controls") as dest:
        result.save(dest, fitting.store("train").base)
        write_json(dest / "params.json", params.effective("controls"))
        write_json(dest / "metrics.json", result.summary())
        rows = [{"control": name, **row} for name, curve in result.curves.items() for row in curve]
        write_table(dest / "curves.tsv", rows)
    return {"rows": result.seconds}
