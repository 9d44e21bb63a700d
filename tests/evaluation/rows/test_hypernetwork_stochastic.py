"""The denoiser with fresh weights, trained on the task's loss alone."""

import pytest
import torch

from ocd_core.artifacts import Artifacts
from ocd_core.diffusion import memory, tuning
from ocd_core.errors import UserError
from ocd_core.evaluation.context import Fitting
from ocd_core.evaluation.rows.hypernetwork_stochastic import Stochastic, StochasticParams
from ocd_core.predictor import Predictor
from tests.diffusion.test_tuning import rows_of_updates
from tests.support.runs import assert_same_outputs, drawn_deltas, fit_row, moved_by_hand, params_of, val_pass


def test_it_is_an_ensemble_of_draws_in_one_step(run: Artifacts) -> None:
    row, fitting, fit = fit_row(run, "hypernetwork_stochastic", updates=4, validate_every=2, lrs=[1e-3, 1e-2])
    shared = val_pass(fitting)
    drawn = [
        moved_by_hand(fitting.predictor, shared.batch, drawn_deltas(row.predictor, shared.batch, k)) for k in range(3)
    ]
    assert_same_outputs(row.distribution(shared), torch.stack(drawn))
    assert_same_outputs(row.outputs(shared), torch.stack(drawn).mean(0))
    assert row.predictor.sampling.steps == 1
    assert row.title.endswith("ensemble of 3")
    assert fit.flops is not None
    assert fit.flops["total"] > 0
    assert fit.metrics["val_loss"] <= fit.metrics["val_loss_before"]


def test_it_starts_afresh_and_sees_no_delta(run: Artifacts, monkeypatch: pytest.MonkeyPatch) -> None:
    row, fitting, _ = fit_row(run, "hypernetwork_stochastic", lrs=[1e-9])
    own, other = row.predictor.diffusion.state_dict(), fitting.predictor.diffusion.state_dict()
    assert not torch.equal(own["denoiser.first.weight"], other["denoiser.first.weight"])
    same = [name for name in own if name.startswith("representation")]
    assert all(torch.equal(own[name], other[name]) for name in same)
    seen = []
    monkeypatch.setattr(tuning, "_denoising", lambda _model, deltas, *_: seen.append(deltas))
    fit_row(run, "hypernetwork_stochastic")
    assert seen == [None]


def test_it_sees_the_inputs_that_overfitting_saw(run: Artifacts, monkeypatch: pytest.MonkeyPatch) -> None:
    seeds = []

    def recorded(task, split, sample_id, replica, step, seed):
        seeds.append(seed)
        return split.batch(sample_id)

    monkeypatch.setattr("ocd_core.network.moved_loss.step_batch", recorded)
    fit_row(run, "hypernetwork_stochastic")
    assert set(seeds) == {run.seed}


def test_its_batches_are_cut_as_those_of_the_tuning_are(run: Artifacts, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = rows_of_updates(monkeypatch)
    assert params_of(run).tuning.accumulate == 1
    fit_row(run, "hypernetwork_stochastic", batch_size=6)
    assert set(rows) == {6}
    for accumulate, size in ((3, 2), (8, 1)):  # no more parts than samples
        rows.clear()
        params = params_of(run)
        changed = params.tuning.model_copy(update={"accumulate": accumulate})
        params = params.model_copy(update={"tuning": changed})
        fitting = Fitting(run, params, Predictor.from_run(run, params, with_gain=False))
        row = Stochastic("hypernetwork_stochastic", fitting)
        row.params = StochasticParams.model_validate({**Stochastic.quick, "batch_size": 6})
        row.fit(fitting)
        assert set(rows) == {size}


def test_the_remedy_for_too_little_memory_is_one_that_counts(run: Artifacts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "training_memory", lambda *_args: memory.TrainingMemory(1, 10**6))
    monkeypatch.setattr(memory, "available_memory", lambda _device: 10**5)
    with pytest.raises(UserError, match=r"raise tuning\.accumulate \(now 1\)"):
        fit_row(run, "hypernetwork_stochastic")
