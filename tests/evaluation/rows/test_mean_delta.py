"""The mean Δ against numpy."""

import json

import numpy as np
import pytest
import torch

from ocd_core.artifacts import Artifacts
from ocd_core.store import OverfitStore
from tests.support.runs import assert_same_outputs, moved_by_hand, row_of


def test_every_sample_moves_by_the_mean_of_the_training_store(run: Artifacts) -> None:
    row, shared = row_of(run, "mean_delta")
    deltas = OverfitStore(run.overfit("train")).deltas().astype(np.float64)
    mean = deltas.sum(0) / len(deltas)
    np.testing.assert_allclose(row.delta_OI, mean, rtol=1e-6, atol=1e-9)
    expected = moved_by_hand(shared.predictor, shared.batch, torch.from_numpy(mean).expand(len(shared), -1, -1))
    assert_same_outputs(row.outputs(shared), expected)
    metrics = json.loads((run.controls / "metrics.json").read_text())["mean_delta"]
    assert metrics["norm"] == pytest.approx(float(np.sqrt((mean**2).sum())), rel=1e-5)
