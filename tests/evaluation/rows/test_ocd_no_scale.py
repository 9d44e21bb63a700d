"""One draw at the mean training norm; only for representations of directions."""

import numpy as np
import pytest
import torch

from ocd_core.artifacts import Artifacts
from ocd_core.evaluation.fitted import load_rows
from ocd_core.store import OverfitStore
from tests.support.runs import assert_same_outputs, context_of, drawn_deltas, moved_by_hand, row_of


def test_every_draw_has_the_mean_norm_of_the_training_deltas(run: Artifacts) -> None:
    if not context_of(run).predictor.diffusion.representation.uses_scale:
        rows, left_out = load_rows(context_of(run), ["ocd_no_scale"])
        assert rows == []
        assert left_out == {"ocd_no_scale": "the representation pca has no scale of its own"}
        return
    row, shared = row_of(run, "ocd_no_scale")
    norms = [np.sqrt((delta.astype(np.float64) ** 2).sum()) for delta in OverfitStore(run.overfit("train")).deltas()]
    assert row.mean_rho == pytest.approx(np.mean(norms), rel=1e-5)
    rho_N = torch.full((len(shared),), float(np.mean(norms)))
    deltas = drawn_deltas(shared.predictor, shared.batch, 0, rho_N)
    torch.testing.assert_close(deltas.flatten(1).norm(dim=1), rho_N, rtol=1e-4, atol=0)
    assert_same_outputs(row.outputs(shared), moved_by_hand(shared.predictor, shared.batch, deltas))
    shared.predictor.gain = 0.3
    assert_same_outputs(row.outputs(shared), moved_by_hand(shared.predictor, shared.batch, 0.3 * deltas))
    assert row.title == "OCD without scale (mean ρ), with gain"
