"""Δ drawn for other samples: really those of others, whatever the batches are."""

import pytest
import torch

from ocd_core.artifacts import Artifacts
from ocd_core.evaluation.fitted import load_rows
from ocd_core.evaluation.shared_pass import SharedPass
from tests.support.runs import assert_same_outputs, context_of, drawn_deltas, moved_by_hand, whole_test_batch


@pytest.mark.parametrize("variant", [0, 1])
def test_each_sample_has_the_delta_of_another(run: Artifacts, variant: int) -> None:
    context = context_of(run)
    rows, left_out = load_rows(context, ["ocd_permuted"])
    assert not left_out
    assert [row.name for row in rows] == ["ocd_permuted", "ocd_permuted_tuned"]
    row, batch = rows[variant], whole_test_batch(context)
    shared = SharedPass(context.predictor, batch, "test")
    other = row.others("test")
    assert (other != torch.arange(len(batch))).all()
    assert sorted(other.tolist()) == list(range(len(batch)))
    drawing = [context.predictor, row.context.tuned][variant]
    outputs = [moved_by_hand(context.predictor, batch, drawn_deltas(drawing, batch.select(other), k)) for k in range(3)]
    assert_same_outputs(row.outputs(shared), torch.stack(outputs).mean(0))
    own = torch.stack([moved_by_hand(context.predictor, batch, drawn_deltas(drawing, batch, k)) for k in range(3)])
    assert (row.outputs(shared) - own.mean(0)).abs().max() > 1e-4
    part = SharedPass(context.predictor, batch.select(slice(5, 8)), "test")
    torch.testing.assert_close(row.outputs(part), row.outputs(shared)[5:8], rtol=1e-4, atol=1e-6)


def test_without_tuning_there_is_one_row(run: Artifacts) -> None:
    context = context_of(run)
    untuned = context.params.tuning.model_copy(update={"updates": 0})
    object.__setattr__(context, "params", context.params.model_copy(update={"tuning": untuned}))
    rows, _ = load_rows(context, ["ocd_permuted"])
    assert [row.title for row in rows] == ["OCD, Δ drawn for other samples, ensemble of 3"]
