"""An ensemble of drawn networks, each set up by hand."""

import torch

from ocd_core.artifacts import Artifacts
from ocd_core.predictor import Predictor
from tests.support.runs import assert_same_outputs, count_answers, drawn_deltas, moved_by_hand, params_of, row_of


def test_it_is_the_mean_output_of_the_drawn_networks(run: Artifacts) -> None:
    predictor = Predictor.from_run(run, params_of(run))
    for gain, note in ((None, ""), (0.3, ", with gain")):
        predictor.gain = gain
        row, shared = row_of(run, "ocd_ensemble", predictor)
        outputs = [
            moved_by_hand(predictor, shared.batch, (gain or 1) * drawn_deltas(predictor, shared.batch, k))
            for k in range(3)
        ]
        assert_same_outputs(row.outputs(shared), torch.stack(outputs).mean(0))
        assert row.title == f"OCD, ensemble of 3{note}"


def test_the_task_says_how_outputs_combine(run: Artifacts, monkeypatch) -> None:
    row, shared = row_of(run, "ocd_ensemble")
    monkeypatch.setattr(shared.predictor.task, "combine", lambda outputs_KN: outputs_KN.amax(0))
    found = row.outputs(shared)
    each = torch.stack([shared.drawn().output(k) for k in range(3)])
    assert torch.equal(found, each.amax(0))


def test_its_networks_answer_once_for_all_rows(run: Artifacts, monkeypatch) -> None:
    row, shared = row_of(run, "ocd_ensemble")
    calls = count_answers(monkeypatch)
    shared.drawn().output(0)
    for _ in range(2):
        row.outputs(shared)
    assert len(calls) == 3
