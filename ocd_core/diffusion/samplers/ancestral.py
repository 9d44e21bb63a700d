"""`ancestral`: Alg. 2 in its standard form, over all timesteps."""

from torch import Tensor

from ocd_core.diffusion.samplers.base import Callback, Denoise, Noise
from ocd_core.diffusion.sampling_params import SamplingParams
from ocd_core.diffusion.schedules import NoiseSchedule


def ancestral(denoise: Denoise, noise: Noise, schedule: NoiseSchedule, callback: Callback | None = None) -> Tensor:
    """Alg. 2 in its standard form (Ho et al., 2020, Alg. 2): t = T .. 1, fresh noise of variance β̃_t except at t = 1.

    The step is written as the posterior mean of Ω_{t-1} given Ω_t and Ω̂_0, which is the same as line 5 of Alg. 2 and
    also holds if α_t = 0 (β̃_t = β_t (1 - ᾱ_{t-1}) / (1 - ᾱ_t)).
    """
    omega = noise(0)
    bars, alphas, betas = schedule.bars, schedule.alphas.tolist(), schedule.betas.tolist()
    for k, t in enumerate(range(schedule.timesteps, 0, -1), start=1):
        x0, _ = denoise(omega, t)
        if callback is not None:
            callback(t, omega, x0)
        left = 1 - bars[t]
        omega = (bars[t - 1] ** 0.5 * betas[t] / left) * x0 + (alphas[t] ** 0.5 * (1 - bars[t - 1]) / left) * omega
        if t > 1:
            omega = omega + (betas[t] * (1 - bars[t - 1]) / left) ** 0.5 * noise(k)
    return omega


def sample(denoise: Denoise, noise: Noise, schedule: NoiseSchedule, sampling: SamplingParams) -> Tensor:
    """All timesteps, whatever `sampling.steps` says; see `ocd_core.diffusion.samplers.base.Sampler`."""
    return ancestral(denoise, noise, schedule)
