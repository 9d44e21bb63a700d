"""One pass and each draw are computed once, however many rows ask."""

import pytest
import torch

from ocd_core import predictor
from ocd_core.artifacts import Artifacts
from ocd_core.evaluation.fitted import load_rows
from ocd_core.evaluation.shared_pass import SharedPass
from ocd_core.predictor import Predictor
from ocd_core.samples import Batch
from tests.support.runs import context_of, params_of, row_of, whole_test_batch


def test_rows_share_the_pass_and_the_draws(run: Artifacts, monkeypatch: pytest.MonkeyPatch) -> None:
    context = context_of(run)
    rows, _ = load_rows(context, context.params.evaluate.rows)
    calls: list[str] = []

    def counted(name, function):
        return lambda *args: calls.append(name) or function(*args)

    monkeypatch.setattr(predictor, "base_pass", counted("pass", predictor.base_pass))
    for name in ("code", "estimate_rho"):
        monkeypatch.setattr(context.predictor, name, counted(name, getattr(context.predictor, name)))
    moved = counted("moved", predictor.outputs_with_move)
    monkeypatch.setattr(predictor, "outputs_with_move", moved)
    shared = SharedPass(context.predictor, whole_test_batch(context), "test")
    for row in rows:
        row.outputs(shared)
    assert calls.count("pass") == calls.count("estimate_rho") == 1
    assert calls.count("code") == context.draws == 3
    # for each draw (of OCD, the tuned model, the fresh denoiser); once for each row that moves the layer otherwise
    drawn = {"ocd", "ocd_ensemble", "ocd_tuned", "ocd_tuned_ensemble", "hypernetwork_stochastic"}
    assert drawn <= {row.name for row in rows}
    otherwise = {row.name for row in rows} - {"base", "base_further"} - drawn
    gain_of_one = any(row.name == "ocd_gain" and row.gain == 1 for row in rows)  # the first draw itself
    assert calls.count("moved") == 3 * 3 + len(otherwise) - gain_of_one


def test_another_predictor_has_draws_of_its_own(run: Artifacts) -> None:
    _, shared = row_of(run, "base")
    other = Predictor.from_run(run, params_of(run))
    other.seed += 1
    assert shared.drawn(other) is shared.drawn(other)
    assert shared.drawn() is shared.drawn(shared.predictor)
    assert not torch.equal(shared.drawn(other).code(0), shared.drawn().code(0))
    torch.testing.assert_close(shared.drawn(other).code(0), other.code(shared.base, shared.batch.sample_id, 0))


def test_rows_find_no_labels(run: Artifacts) -> None:
    context = context_of(run)
    batch = whole_test_batch(context)
    assert batch.target.abs().min() > 0
    shared = SharedPass(context.predictor, batch, "test")
    assert shared.batch.target.abs().max() == shared.on_device.target.abs().max() == 0
    pair = SharedPass(
        context.predictor, Batch(batch.inputs, (batch.target, batch.target[:, 0]), batch.sample_id), "test"
    )
    assert [part.shape for part in pair.batch.target] == [(20, 2), (20,)]
    assert torch.equal(shared.batch.inputs[0], batch.inputs[0])


def test_what_several_rows_need_is_kept_for_the_batch(run: Artifacts) -> None:
    _, shared = row_of(run, "base")
    calls: list[int] = []
    for _ in range(3):
        assert shared.once("key", lambda: calls.append(1) or "value") == "value"
    assert calls == [1]
    assert len(shared) == 20
