"""The row of the kernel ridge regression."""

import torch

from ocd_core.artifacts import Artifacts
from tests.support.runs import assert_same_outputs, moved_by_hand, row_of


def test_the_row_moves_the_layer_by_its_delta(run: Artifacts) -> None:
    row, shared = row_of(run, "ridge")
    base = shared.base
    ones = torch.ones(len(shared)) if row.space.representation.uses_scale else None
    deltas = row.space.representation.decode(row.ridge(base.condition), ones, base.cut.layer_input_NI)
    assert_same_outputs(row.outputs(shared), moved_by_hand(shared.predictor, shared.batch, deltas))
