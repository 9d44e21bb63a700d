"""`ddim`: fewer steps, without fresh noise or with some (`sampling.eta`)."""

from itertools import pairwise

from torch import Tensor

from ocd_core.diffusion.samplers.base import Callback, Denoise, Noise, trailing_timesteps
from ocd_core.diffusion.sampling_params import SamplingParams
from ocd_core.diffusion.schedules import NoiseSchedule


def ddim(
    denoise: Denoise,
    noise: Noise,
    schedule: NoiseSchedule,
    steps: int,
    eta: float = 0.0,
    callback: Callback | None = None,
) -> Tensor:
    """DDIM (Song et al., 2020, Eq. 12 and 16) over `steps` timesteps with trailing spacing, so it starts at T.

    eta: 0 is deterministic after Ω_T; 1 with steps = T has the variances of `ancestral`.
    """
    omega = noise(0)
    bars = schedule.bars
    times = [*trailing_timesteps(schedule.timesteps, steps), 0]
    for k, (t, to) in enumerate(pairwise(times), start=1):
        x0, epsilon = denoise(omega, t)
        if callback is not None:
            callback(t, omega, x0)
        variance = eta**2 * (1 - bars[to]) / (1 - bars[t]) * (1 - bars[t] / bars[to])
        omega = bars[to] ** 0.5 * x0 + max(1 - bars[to] - variance, 0.0) ** 0.5 * epsilon
        if variance > 0:
            omega = omega + variance**0.5 * noise(k)
    return omega


def sample(denoise: Denoise, noise: Noise, schedule: NoiseSchedule, sampling: SamplingParams) -> Tensor:
    """See `ocd_core.diffusion.samplers.base.Sampler`."""
    return ddim(denoise, noise, schedule, sampling.steps, sampling.eta)
