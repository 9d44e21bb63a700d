"""The twin: it goes on from the network that the regression of Δ gives."""

import pytest
import torch

from ocd_core.artifacts import Artifacts
from tests.support.runs import fit_row, val_pass

CHOICES = {"widths": [8], "batch_size": 8, "validate_every": 5, "patience": 9}


def test_its_end_to_end_training_starts_from_the_regression(run: Artifacts) -> None:
    first, fitting, fit = fit_row(run, "regression", updates=30, lrs=[1e-2], **CHOICES)
    shared = val_pass(fitting)
    target = fitting.split("val").batch(torch.arange(len(shared))).target
    after_regression = float(fitting.task.loss(first.outputs(shared), target).mean())
    regression = {"updates": 30, "lrs": [1e-2]}
    row, fitting, twin = fit_row(
        run, "hypernetwork_pretrained", updates=10, lrs=[1e-3, 1e-2], regression=regression, **CHOICES
    )
    assert twin.metrics["regression_val_loss"] == fit.metrics["val_loss"]
    assert twin.metrics["val_loss_before"] == pytest.approx(after_regression, rel=1e-4)
    assert twin.metrics["val_loss"] <= twin.metrics["val_loss_before"]
    loss = float(fitting.task.loss(row.outputs(val_pass(fitting)), target).mean())
    assert twin.metrics["val_loss"] == pytest.approx(loss, rel=1e-4)
    assert {r["phase"] for r in twin.curve} == {1, 2}
    alone = fit_row(run, "hypernetwork", updates=10, lrs=[1e-3, 1e-2], **CHOICES)[2]
    assert twin.flops["total"] == fit.flops["total"] + alone.flops["total"]
