"""The rows on it are compared with weights set by hand in tests/evaluation/rows; here, a direction of norm 0."""

import torch

from ocd_core.artifacts import Artifacts
from ocd_core.evaluation.same_norm import SameNormRow
from tests.support.runs import context_of, row_of


class Nowhere(SameNormRow):
    title = "nowhere"

    def directions(self, shared, k):
        return torch.zeros(len(shared), *shared.predictor.model.weight_OI.shape)


def test_a_direction_that_is_zero_moves_nothing(run: Artifacts) -> None:
    _, shared = row_of(run, "base")
    row = Nowhere("weight_noise", context_of(run))
    torch.testing.assert_close(row.outputs(shared), shared.base.output)
