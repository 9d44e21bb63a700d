import pytest
import torch

from ocd_core.diffusion.samplers.base import trailing_timesteps
from ocd_core.diffusion.samplers.dpm import dpm_solver
from ocd_core.diffusion.schedules import make_schedule
from tests.diffusion.samplers.common import generator_noise


@pytest.mark.parametrize(
    ("schedule", "timesteps", "steps"),
    [("released", 1000, n) for n in (1, 2, 3, 43, 48, 61, 103, 121, 499, 1000)]
    + [("paper", 100, n) for n in (29, 31, 58, 97)]
    + [("zero_snr", 50, n) for n in range(1, 51)]
    + [("zero_snr", 10_000, 20)],
)
def test_dpm_solver_visits_the_trailing_timesteps_and_is_exact_on_a_point_mass(schedule, timesteps, steps):
    s, point, visited = make_schedule(schedule, timesteps), torch.tensor([0.3, -2.0], dtype=torch.float64), []

    def denoise(omega, t):
        visited.append(t)
        return point.expand_as(omega), torch.zeros_like(omega)

    out = dpm_solver(denoise, generator_noise((3, 2)), s, steps)
    assert visited == trailing_timesteps(timesteps, steps)
    torch.testing.assert_close(out, point.expand(3, 2).clone(), rtol=1e-9, atol=1e-9)
