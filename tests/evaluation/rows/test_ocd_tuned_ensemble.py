"""An ensemble of draws of the tuned model, each set up by hand."""

import torch

from ocd_core.artifacts import Artifacts
from tests.support.runs import assert_same_outputs, drawn_deltas, moved_by_hand, row_of


def test_it_combines_the_outputs_of_the_tuned_models_draws(run: Artifacts) -> None:
    row, shared = row_of(run, "ocd_tuned_ensemble")
    tuned = row.context.tuned
    outputs = [moved_by_hand(tuned, shared.batch, drawn_deltas(tuned, shared.batch, k)) for k in range(3)]
    assert not torch.equal(outputs[0], outputs[1])
    assert_same_outputs(row.outputs(shared), torch.stack(outputs).mean(0))
    assert_same_outputs(row.distribution(shared), torch.stack(outputs))
    assert row.title == "OCD tuned on the task's loss, ensemble of 3"
