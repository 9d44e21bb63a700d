import numpy as np
import pytest
import torch

from ocd_core.codes.condition import ConditionEncoder
from ocd_core.codes.representations.factored import Factored
from ocd_core.diffusion.draw import draw
from ocd_core.diffusion.model import DiffusionModel
from ocd_core.diffusion.samplers import SAMPLERS
from ocd_core.diffusion.sampling_params import SamplingParams
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
