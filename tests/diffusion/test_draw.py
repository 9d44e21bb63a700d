import numpy as np
import pytest
import torch

from ocd_core.codes.condition import ConditionEncoder
from ocd_core.codes.representations.factored import Factored
from ocd_core.diffusion.draw import Drawer, draw
from ocd_core.diffusion.model import DiffusionModel
from ocd_core.diffusion.samplers import SAMPLERS
from ocd_core.diffusion.samplers.ddim import ddim
from ocd_core.diffusion.sampling_params import SamplingParams
from ocd_core.rng import sample_normal
from tests.support.arrays import condition
from tests.support.params import diffusion_params


def small_model(**changes):
    cond = condition(20)
    torch.manual_seed(0)
    params = diffusion_params(**changes)
    return DiffusionModel(ConditionEncoder.from_condition(cond, params.embedding), Factored(6, 7, True), params), cond


@pytest.mark.parametrize("sampler", SAMPLERS.own())
def test_a_draw_depends_on_seed_draw_and_sample_only(sampler):
    model, cond = small_model()
    sampling = SamplingParams(sampler=sampler, steps=5, eta=0.5, renormalise=False)
    ids = torch.arange(100, 120)
    codes = draw(model, cond, ids, 3, 0, sampling, batch=20)
    assert codes.shape == (20, 6)
    torch.testing.assert_close(draw(model, cond, ids, 3, 0, sampling, batch=7), codes)
    order = torch.randperm(20, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(draw(model, cond.select(order), ids[order], 3, 0, sampling, batch=9), codes[order])
    for other in (draw(model, cond, ids, 4, 0, sampling, 20), draw(model, cond, ids, 3, 1, sampling, 20)):
        assert (other - codes).abs().amax(1).min() > 1e-3


def test_renormalise_gives_codes_of_one_norm():
    model, cond = small_model()
    raw = SamplingParams(sampler="ddim", steps=5, eta=0.0, renormalise=False)
    free = draw(model, cond, torch.arange(20), 0, 0, raw, 20)
    unit = draw(model, cond, torch.arange(20), 0, 0, raw.model_copy(update={"renormalise": True}), 20)
    np.testing.assert_allclose(unit.norm(dim=1), 6**0.5, rtol=1e-5)
    torch.testing.assert_close(free / free.norm(dim=1, keepdim=True) * 6**0.5, unit)
    assert free.norm(dim=1).std() > 1e-3


def test_no_samples_and_progress():
    model, cond = small_model()
    sampling = SamplingParams(sampler="ddim", steps=2, eta=0.0, renormalise=True)
    assert draw(model, cond.select(slice(0)), torch.arange(0), 0, 0, sampling, 4).shape == (0, 6)
    seen = []
    draw(model, cond, torch.arange(20), 0, 0, sampling, 8, lambda done, _note: seen.append(done))
    assert seen == [8, 16, 20]


def test_draws_share_what_depends_on_the_model_alone(monkeypatch):
    model, cond = small_model()
    sampling = SamplingParams(sampler="ddim", steps=5, eta=0.0, renormalise=True)
    calls = []
    model.time.register_forward_hook(lambda *_: calls.append("time"))
    model.encoder.register_forward_hook(lambda *_: calls.append("encoder"))
    drawer = Drawer(model, sampling, 8)
    found = [drawer.draw(cond, torch.arange(20), 3, k) for k in range(3)]
    assert calls == ["time"]
    monkeypatch.setattr("ocd_core.diffusion.draw._ROWS_AHEAD", 1)  # each timestep alone
    for k, code in enumerate(found):
        torch.testing.assert_close(draw(model, cond, torch.arange(20), 3, k, sampling, 20), code)


def test_a_draw_is_the_sampler_on_the_models_own_predictions():
    model, cond = small_model()
    sampling = SamplingParams(sampler="ddim", steps=4, eta=0.0, renormalise=False)
    found = draw(model, cond, torch.arange(20), 3, 0, sampling, 20)
    with torch.no_grad():
        e0 = model.embed(cond)
        wanted = ddim(
            lambda omega, t: model.split(model.predict(omega, torch.tensor([t]), e0), omega, t),
            lambda k: sample_normal(model.shape, range(20), 3, "draw", 0, k),
            model.schedule,
            4,
        )
    torch.testing.assert_close(found, wanted)


def walk(denoise, noise, schedule, sampling):
    """A sampler whose timesteps depend on what it meets, so that no trial run can tell them."""
    omega = noise(0)
    for t in (9, 4 + int(omega.abs().sum() > 0), 9):
        omega, _ = denoise(omega, t)
    return omega


def test_timesteps_may_depend_on_the_values():
    model, cond = small_model()
    sampling = SamplingParams(sampler=f"{__name__}:walk", steps=4, eta=0.0, renormalise=False)
    found = draw(model, cond, torch.arange(20), 3, 0, sampling, 20)
    with torch.no_grad():
        e0, omega = model.embed(cond), sample_normal(model.shape, range(20), 3, "draw", 0, 0)
        for t in (9, 5, 9):
            omega, _ = model.split(model.predict(omega, torch.tensor([t]), e0), omega, t)
    torch.testing.assert_close(found, omega)
