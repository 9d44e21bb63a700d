"""Gaussian moves: the norm of OCD's draws, and no other connection with them."""

import torch

from ocd_core.artifacts import Artifacts
from ocd_core.evaluation.shared_pass import SharedPass
from tests.support.runs import assert_same_outputs, drawn_deltas, moved_by_hand, row_of


def test_moves_have_the_norm_of_the_draws_and_random_directions(run: Artifacts) -> None:
    row, shared = row_of(run, "weight_noise")
    predictor, outputs = shared.predictor, []
    for k in range(3):
        drawn = drawn_deltas(predictor, shared.batch, k).flatten(1)
        moved = row.delta(shared, k)
        torch.testing.assert_close(moved.flatten(1).norm(dim=1), drawn.norm(dim=1), rtol=1e-4, atol=1e-8)
        cosine = torch.cosine_similarity(moved.flatten(1), drawn)
        assert cosine.abs().mean() < 0.6  # of a dozen entries
        outputs.append(moved_by_hand(predictor, shared.batch, moved))
    assert not torch.equal(outputs[0], outputs[1])
    assert_same_outputs(row.outputs(shared), torch.stack(outputs).mean(0))


def test_a_samples_moves_do_not_depend_on_the_batch(run: Artifacts) -> None:
    row, shared = row_of(run, "weight_noise")
    one = SharedPass(shared.predictor, shared.batch.select(slice(4, 5)), "test")
    torch.testing.assert_close(row.delta(one, 1)[0], row.delta(shared, 1)[4], rtol=1e-4, atol=1e-7)
