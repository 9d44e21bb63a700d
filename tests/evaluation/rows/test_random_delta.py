"""Δ of random training samples, brought to the norm of OCD's draws."""

import torch

from ocd_core.artifacts import Artifacts
from ocd_core.evaluation.rows import random_delta
from tests.support.runs import assert_same_outputs, drawn_deltas, moved_by_hand, row_of


def test_each_is_a_training_delta_with_the_norm_of_a_draw(run: Artifacts) -> None:
    row, shared = row_of(run, "random_delta")
    stored = torch.from_numpy(row.context.store("train").deltas()).flatten(1)
    directions = stored / stored.norm(dim=1, keepdim=True)
    chosen, outputs = [], []
    for k in range(3):
        delta_NOI = row.delta(shared, k)
        moved = delta_NOI.flatten(1)
        drawn = drawn_deltas(shared.predictor, shared.batch, k).flatten(1)
        torch.testing.assert_close(moved.norm(dim=1), drawn.norm(dim=1), rtol=1e-4, atol=1e-8)
        cosine, at = (moved / moved.norm(dim=1, keepdim=True) @ directions.T).max(1)
        torch.testing.assert_close(cosine, torch.ones_like(cosine), rtol=1e-4, atol=0)
        chosen += at.tolist()
        outputs.append(moved_by_hand(shared.predictor, shared.batch, delta_NOI))
    assert len(set(chosen)) > len(chosen) // 3  # not the same for all
    assert_same_outputs(row.outputs(shared), torch.stack(outputs).mean(0))


def test_a_large_store_is_read_in_part(run: Artifacts, monkeypatch) -> None:
    row, shared = row_of(run, "random_delta")
    out_features, in_features = shared.predictor.model.weight_OI.shape
    monkeypatch.setattr(random_delta, "_POOL_BYTES", 4 * out_features * in_features * 5)
    assert row.pool_MOI.shape == (5, out_features, in_features)
    assert len(row.directions(shared, 0)) == len(shared)
