"""The row that all such networks share."""

from ocd_core.artifacts import Artifacts
from ocd_core.evaluation.delta_networks import QUICK
from tests.support.runs import fit_row


def test_every_width_and_rate_is_tried_and_the_best_on_val_is_kept(run: Artifacts) -> None:
    values = {**QUICK, "updates": 6, "validate_every": 2, "patience": 9, "batch_size": 8}
    each = {
        (width, lr): fit_row(run, "hypernetwork", **{**values, "widths": [width], "lrs": [lr]})[2]
        for width in (3, 9)
        for lr in (1e-3, 1e-1)
    }
    row, _, both = fit_row(run, "hypernetwork", **{**values, "widths": [3, 9], "lrs": [1e-3, 1e-1]})
    best = min(each, key=lambda key: each[key].metrics["val_loss"])
    assert (both.metrics["width"], both.metrics["lr"]) == best
    assert both.metrics["val_loss"] == each[best].metrics["val_loss"]
    assert row.network.encoder.dim == best[0]
    assert both.flops["total"] == sum(fit.flops["total"] for fit in each.values())
    assert {(r["width"], r["tried_lr"]) for r in both.curve} == set(each)
