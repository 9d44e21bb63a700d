"""The cost of answers, against operations counted by hand."""

import pytest
import torch

from ocd_core.artifacts import Artifacts
from ocd_core.evaluation.answering import cost_of_answers
from ocd_core.evaluation.row import Row
from ocd_core.evaluation.shared_pass import SharedPass
from ocd_core.samples import Tensors
from tests.support.runs import context_of, row_of, whole_test_batch


def cost(run: Artifacts, name: str):
    row, shared = row_of(run, name)
    row.outputs(shared)  # the first pass also checks how the network is cut
    return cost_of_answers(row, shared.predictor, whole_test_batch(context_of(run)), 20)


def test_the_base_costs_its_products(run: Artifacts) -> None:
    """Three positions through 4 -> 6, then 6 -> 2: twice as many operations as weights, once each."""
    found = cost(run, "base")
    assert found.flops == 2 * (3 * 4 * 6 + 6 * 2)
    assert 0 < found.seconds < 1


def test_draws_cost_more_than_the_base_and_an_ensemble_more_than_a_draw(run: Artifacts) -> None:
    base, one, five = (cost(run, name).flops for name in ("base", "ocd", "ocd_ensemble"))
    assert base < one < five
    assert five - base == pytest.approx(3 * (one - base), rel=0.35)  # three draws share the base's pass and ρ


class Whole(Row):
    """Answers a whole split at once, and counts how often it had to."""

    title = "whole"
    whole_split = True

    def __init__(self, run: Artifacts) -> None:
        super().__init__("whole", context_of(run))
        self.kept: Tensors | None = None
        self.computed = 0

    def outputs(self, shared: SharedPass) -> Tensors:
        if self.kept is None:
            self.computed += 1
            self.kept = torch.ones(20, 100) @ torch.ones(100, 2)
        return self.kept[shared.batch.sample_id]

    def forget(self) -> None:
        self.kept = None


def test_a_row_that_answers_a_split_at_once_is_shared_by_its_samples(run: Artifacts) -> None:
    row, context = Whole(run), context_of(run)
    batch = whole_test_batch(context)
    row.outputs(SharedPass(context.predictor, batch, "test"))
    found = cost_of_answers(row, context.predictor, batch.select(slice(0, 5)), 20)
    assert row.computed == 3  # once before, once counted, once timed
    assert found.flops == 2 * 100 * 2
