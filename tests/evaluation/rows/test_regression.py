"""The regression of Δ: it never sees the task's loss."""

import pytest
import torch

from ocd_core.artifacts import Artifacts
from tests.support.runs import assert_same_outputs, fit_row, moved_by_hand, val_pass
from tests.support.toy import ToyTask


def forbidden(*_args: object) -> None:
    raise AssertionError("the task's loss")


def test_it_learns_from_delta_alone(run: Artifacts, monkeypatch) -> None:
    monkeypatch.setattr(ToyTask, "loss", forbidden)
    row, fitting, fit = fit_row(run, "regression", updates=60, validate_every=10, patience=9, lrs=[1e-2], widths=[8])
    assert fit.metrics["val_loss"] < fit.metrics["val_loss_before"]
    store = fitting.store("val")
    code_Nd = fitting.space.encode_store(store) / row.network.scale
    gap = row.network(store.condition()) / row.network.scale - code_Nd
    assert fit.metrics["val_loss"] == pytest.approx(float(gap.square().mean()), rel=1e-4)
    assert fit.metrics["val_loss_before"] == pytest.approx(float(code_Nd.square().mean()), rel=1e-4)
    with pytest.raises(AssertionError, match="the task's loss"):
        fit_row(run, "hypernetwork")


def test_it_moves_the_layer_by_its_delta(run: Artifacts) -> None:
    row, fitting, _ = fit_row(run, "regression", updates=5, validate_every=5)
    shared = val_pass(fitting)
    base, ones = shared.base, torch.ones(len(shared)) if row.space.representation.uses_scale else None
    deltas = row.space.representation.decode(row.network(base.condition), ones, base.cut.layer_input_NI)
    assert_same_outputs(row.outputs(shared), moved_by_hand(shared.predictor, shared.batch, deltas))
