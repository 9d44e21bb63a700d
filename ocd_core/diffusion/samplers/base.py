"""The protocol of samplers, pure functions from a denoiser and noise to codes, and what samplers share.

`denoise(omega_t, t)` gives (Ω̂_0, ε̂) at timestep t for all samples. `noise(k)` gives standard normal numbers of the
codes' shape: k = 0 is Ω_T (Eq. 5), k = 1, 2, ... the fresh noise of the k-th step. Randomness comes from outside, so a
draw depends on (seed, draw, sample id), not on the batch or its other samples.
"""

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor

from ocd_core.diffusion.sampling_params import SamplingParams
from ocd_core.diffusion.schedules import NoiseSchedule
from ocd_core.errors import UserError

Denoise = Callable[[Tensor, int], tuple[Tensor, Tensor]]
Noise = Callable[[int], Tensor]
Callback = Callable[[int, Tensor, Tensor], None]  # (t, Ω_t, Ω̂_0), before each step


class Sampler(Protocol):
    """One draw of Ω_0 (Alg. 2), controlled by the group `sampling`."""

    def __call__(self, denoise: Denoise, noise: Noise, schedule: NoiseSchedule, sampling: SamplingParams) -> Tensor:
        """Codes of the shape of `noise(0)`."""
        ...


def visited_timesteps(sampler: Sampler, schedule: NoiseSchedule, sampling: SamplingParams) -> list[int]:
    """The timesteps at which a sampler calls the denoiser, in its order, found by a run on zeros."""
    seen: dict[int, None] = {}

    def denoise(omega_t: Tensor, t: int) -> tuple[Tensor, Tensor]:
        seen[t] = None
        return omega_t, omega_t

    sampler(denoise, lambda _k: torch.zeros(1, 1), schedule, sampling)
    return list(seen)


def trailing_timesteps(timesteps: int, steps: int) -> list[int]:
    """`steps` timesteps from T downwards, evenly spaced (Lin et al., 2023, Tab. 2).

    Raises:
        UserError: more steps than timesteps.
    """
    if steps > timesteps:
        raise UserError(f"sampling.steps is {steps}, but the diffusion has only {timesteps} timesteps; lower it")
    return [round(k * timesteps / steps) for k in range(steps, 0, -1)]
