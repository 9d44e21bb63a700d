"""The denoiser with fresh weights, trained on the task's loss alone."""

import pytest
import torch

from ocd_core.artifacts import Artifacts
from ocd_core.diffusion import tuning
from tests.support.runs import assert_same_outputs, drawn_deltas, fit_row, moved_by_hand, val_pass


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
