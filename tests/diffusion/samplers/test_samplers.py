"""Samplers by name, and each with the params that it has."""

import pytest
import torch

from ocd_core.diffusion.samplers import SAMPLERS, sampler
from ocd_core.diffusion.samplers.ancestral import ancestral
from ocd_core.diffusion.samplers.ddim import ddim
from ocd_core.diffusion.samplers.dpm import dpm_solver
from ocd_core.diffusion.sampling_params import SamplingParams
from ocd_core.diffusion.schedules import make_schedule
from ocd_core.errors import UserError
from tests.diffusion.samplers.common import gaussian_denoiser, generator_noise


@pytest.mark.parametrize("name", SAMPLERS.own())
def test_a_name_gives_the_sampler_with_its_params(name):
    sampling = SamplingParams(sampler=name, steps=4, eta=0.5, renormalise=False)
    s = make_schedule("zero_snr", 12)
    args = gaussian_denoiser(s, 0.4, 2.0), generator_noise((5, 3)), s
    direct = {
        "ancestral": lambda: ancestral(*args),
        "ddim": lambda: ddim(*args, 4, 0.5),
        "dpm": lambda: dpm_solver(*args, 4),
    }
    assert torch.equal(sampler(name)(*args, sampling), direct[name]())


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(UserError, match=r"^unknown sampler 'none'; known are .*ddim"):
        sampler("none")
