"""The row that all such networks share."""

import pytest
import torch

from ocd_core.artifacts import Artifacts
from ocd_core.errors import DivergedError
from ocd_core.evaluation.delta_networks import QUICK, Hypernetwork
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


@pytest.mark.parametrize("widths", [[3, 9], [9, 3]])
def test_a_width_that_diverges_leaves_the_others(run: Artifacts, monkeypatch: pytest.MonkeyPatch, widths) -> None:
    fresh = Hypernetwork.fresh

    def broken(cond, width, *args) -> Hypernetwork:
        network = fresh(cond, width, *args)
        if width == 3:
            torch.nn.init.constant_(network.hidden.bias, float("nan"))
        return network

    alone = {width: fit_row(run, "hypernetwork", **{**QUICK, "widths": [width]})[2] for width in (3, 9)}
    monkeypatch.setattr(Hypernetwork, "fresh", broken)
    row, _, both = fit_row(run, "hypernetwork", **{**QUICK, "widths": widths})
    assert row.network.encoder.dim == 9
    assert (both.metrics, both.curve) == (alone[9].metrics, alone[9].curve)
    assert both.flops["total"] == sum(fit.flops["total"] for fit in alone.values())  # each takes one update
    with pytest.raises(DivergedError, match="hypernetwork"):
        fit_row(run, "hypernetwork", **{**QUICK, "widths": [3]})
