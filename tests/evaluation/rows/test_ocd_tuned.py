"""One draw of the tuned model: weights set by hand, the untuned draw's noise, and no gain."""

import torch

from ocd_core.artifacts import Artifacts
from ocd_core.diffusion.model import DiffusionModel
from ocd_core.evaluation.rows.ocd_tuned import OcdTuned
from ocd_core.predictor import Predictor
from ocd_core.rng import sample_normal
from tests.support.runs import assert_same_outputs, context_of, drawn_deltas, moved_by_hand, params_of, row_of


def test_it_is_the_first_draw_of_the_tuned_model_without_the_gain(run: Artifacts) -> None:
    plain = Predictor.from_run(run, params_of(run))
    plain.gain = 0.3
    row, shared = row_of(run, "ocd_tuned", plain)
    tuned = row.context.tuned
    assert tuned.gain is None
    assert tuned.scale is plain.scale
    own, other = (DiffusionModel.load(folder) for folder in (run.tuned, run.diffusion))
    assert all(torch.equal(a, b) for a, b in zip(tuned.diffusion.parameters(), own.parameters(), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(own.parameters(), other.parameters(), strict=True))
    deltas = drawn_deltas(tuned, shared.batch, 0)
    assert_same_outputs(row.outputs(shared), moved_by_hand(plain, shared.batch, deltas))


def test_it_draws_in_as_many_steps_as_it_was_tuned_in_from_the_noise_of_ocd(run: Artifacts, monkeypatch) -> None:
    row, shared = row_of(run, "ocd_tuned")
    seen = []

    def spy(shape, ids, seed, *purpose):
        seen.append((seed, *purpose))
        return sample_normal(shape, ids, seed, *purpose)

    monkeypatch.setattr("ocd_core.diffusion.draw.sample_normal", spy)
    row.outputs(shared)
    assert seen == [(run.seed, "draw", 0, 0)]
    assert len(row.context.tuned._drawer._times) == params_of(run).tuning.sampler_steps


def test_it_is_left_out_without_tuning(run: Artifacts) -> None:
    context = context_of(run)
    assert OcdTuned("ocd_tuned", context).left_out() is None
    object.__setattr__(context, "params", untuned(context.params))
    assert OcdTuned("ocd_tuned", context).left_out() == "the diffusion model was not tuned (tuning.updates is 0)"


def untuned(params):
    return params.model_copy(update={"tuning": params.tuning.model_copy(update={"updates": 0})})
