"""One network moved by the mean of the drawn Δ."""

import torch

from ocd_core.artifacts import Artifacts
from ocd_core.evaluation.fitted import load_rows
from ocd_core.evaluation.shared_pass import SharedPass
from ocd_core.predictor import Predictor
from tests.support.runs import (
    assert_same_outputs,
    context_of,
    count_answers,
    drawn_deltas,
    moved_by_hand,
    params_of,
    row_of,
    whole_test_batch,
)


def test_its_weights_are_the_mean_of_the_drawn_ones(run: Artifacts) -> None:
    predictor = Predictor.from_run(run, params_of(run))
    for gain, note in ((None, ""), (0.3, ", with gain")):
        predictor.gain = gain
        row, shared = row_of(run, "ocd_mean_network", predictor)
        mean = sum(drawn_deltas(predictor, shared.batch, k) for k in range(3)) / 3
        expected = moved_by_hand(predictor, shared.batch, (gain or 1) * mean)
        assert_same_outputs(row.outputs(shared), expected)
        assert row.title == f"OCD, mean network of 3{note}"


def test_of_one_draw_it_is_the_answer_of_that_draw(run: Artifacts, monkeypatch) -> None:
    context = context_of(run, draws=[1])
    ((row,), _) = load_rows(context, ["ocd_mean_network"])
    shared = SharedPass(context.predictor, whole_test_batch(context), "test")
    calls = count_answers(monkeypatch)
    first = shared.drawn().output(0)
    assert row.outputs(shared) is first
    assert len(calls) == 1
    torch.testing.assert_close(shared.outputs_with(row.move(shared)), first, rtol=0, atol=0)
