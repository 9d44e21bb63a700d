import pytest
import torch

from ocd_core.diffusion.samplers import sampler
from ocd_core.diffusion.samplers.ancestral import ancestral
from ocd_core.diffusion.samplers.base import trailing_timesteps, visited_timesteps
from ocd_core.diffusion.samplers.ddim import ddim
from ocd_core.diffusion.samplers.dpm import dpm_solver
from ocd_core.diffusion.sampling_params import SamplingParams
from ocd_core.diffusion.schedules import make_schedule
from ocd_core.errors import UserError
from tests.diffusion.samplers.common import gaussian_denoiser, generator_noise

RUNS = {
    "ancestral": lambda d, n, s: ancestral(d, n, s),
    "ddim": lambda d, n, s: ddim(d, n, s, 10),
    "ddim eta": lambda d, n, s: ddim(d, n, s, 10, 1.0),
    "dpm": lambda d, n, s: dpm_solver(d, n, s, 10),
}


@pytest.mark.parametrize("run", RUNS)
@pytest.mark.parametrize(("schedule", "timesteps"), [("paper", 10), ("released", 1000), ("zero_snr", 10)])
def test_exact_on_a_point_mass(run, schedule, timesteps):
    s = make_schedule(schedule, timesteps)
    point = torch.tensor([0.3, -2.0, 5.0], dtype=torch.float64)

    def denoise(omega, t):
        bar = float(s.alphas_bar[t])
        x0 = point.expand_as(omega)
        return x0, (omega - bar**0.5 * x0) / (1 - bar) ** 0.5

    out = RUNS[run](denoise, generator_noise((7, 3)), s)
    torch.testing.assert_close(out, point.expand(7, 3).clone(), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("steps", "run"),
    [
        (400, lambda d, n, s: ancestral(d, n, s)),
        (400, lambda d, n, s: ddim(d, n, s, 400, 1.0)),
        (400, lambda d, n, s: ddim(d, n, s, 100)),
        (400, lambda d, n, s: dpm_solver(d, n, s, 25)),
    ],
    ids=["ancestral", "ddim eta 1", "ddim", "dpm"],
)
def test_right_mean_and_variance_on_a_gaussian(steps, run):
    s = make_schedule("zero_snr", steps)
    mean, std, count = 1.5, 0.6, 20_000
    out = run(gaussian_denoiser(s, mean, std**2), generator_noise((count,)), s)
    # standard errors: 0.004 of the mean, 0.003 of the standard deviation; the rest is discretisation
    assert float(out.mean()) == pytest.approx(mean, abs=0.016)
    assert float(out.std()) == pytest.approx(std, abs=0.015)


def test_trailing_timesteps():
    assert trailing_timesteps(1000, 10) == [1000, 900, 800, 700, 600, 500, 400, 300, 200, 100]
    assert trailing_timesteps(10, 10) == list(range(10, 0, -1))
    assert trailing_timesteps(10, 3) == [10, 7, 3]
    with pytest.raises(UserError, match=r"sampling.steps is 11, but the diffusion has only 10 timesteps"):
        trailing_timesteps(10, 11)


@pytest.mark.parametrize(
    ("name", "wanted"), [("ddim", [12, 8, 4]), ("dpm", [12, 8, 4]), ("ancestral", list(range(12, 0, -1)))]
)
def test_the_timesteps_that_a_sampler_visits(name, wanted):
    sampling = SamplingParams(sampler=name, steps=3, eta=0.5, renormalise=False)
    assert visited_timesteps(sampler(name), make_schedule("zero_snr", 12), sampling) == wanted


def test_a_timestep_that_is_visited_twice_is_named_once():
    def heun(denoise, noise, schedule, sampling):
        for t in (9, 5, 5, 1):
            omega, _ = denoise(noise(0), t)
        return omega

    sampling = SamplingParams(sampler="ddim", steps=3, eta=0.0, renormalise=False)
    assert visited_timesteps(heun, make_schedule("zero_snr", 12), sampling) == [9, 5, 1]
