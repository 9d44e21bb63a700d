"""Samplers: pure functions from a denoiser and noise to codes.

`denoise(omega_t, t)` gives (Ω̂_0, ε̂) at timestep t for all samples. `noise(k)` gives standard normal numbers of the
codes' shape: k = 0 is Ω_T (Eq. 5), k = 1, 2, ... the fresh noise of the k-th step. Randomness comes from outside, so a
draw depends on (seed, draw, sample id) and neither on the batch nor on its neighbours.
"""

from collections.abc import Callable
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from ocd_core.diffusion.model import DiffusionModel
from ocd_core.diffusion.sampling_params import SamplingParams
from ocd_core.diffusion.schedules import NoiseSchedule
from ocd_core.errors import UserError
from ocd_core.progress import Progress, no_progress
from ocd_core.rng import sample_normal
from ocd_core.samples import Condition

Denoise = Callable[[Tensor, int], tuple[Tensor, Tensor]]
Noise = Callable[[int], Tensor]
Callback = Callable[[int, Tensor, Tensor], None]  # (t, Ω_t, Ω̂_0), before each step


def ancestral(denoise: Denoise, noise: Noise, schedule: NoiseSchedule, callback: Callback | None = None) -> Tensor:
    """Alg. 2 in its standard form (Ho et al., 2020, Alg. 2): t = T .. 1, fresh noise of variance β̃_t but at t = 1.

    The step is written as the posterior mean of Ω_{t-1} given Ω_t and Ω̂_0, which is the same as Alg. 2's line 5 and
    also holds where α_t = 0 (β̃_t = β_t (1 - ᾱ_{t-1}) / (1 - ᾱ_t)).
    """
    omega = noise(0)
    bars, alphas, betas = schedule.alphas_bar.tolist(), schedule.alphas.tolist(), schedule.betas.tolist()
    for k, t in enumerate(range(schedule.timesteps, 0, -1), start=1):
        x0, _ = denoise(omega, t)
        if callback is not None:
            callback(t, omega, x0)
        left = 1 - bars[t]
        omega = (bars[t - 1] ** 0.5 * betas[t] / left) * x0 + (alphas[t] ** 0.5 * (1 - bars[t - 1]) / left) * omega
        if t > 1:
            omega = omega + (betas[t] * (1 - bars[t - 1]) / left) ** 0.5 * noise(k)
    return omega


def ddim(
    denoise: Denoise,
    noise: Noise,
    schedule: NoiseSchedule,
    steps: int,
    eta: float = 0.0,
    callback: Callback | None = None,
) -> Tensor:
    """DDIM (Song et al., 2020, Eq. 12 and 16) over `steps` timesteps with trailing spacing, so that it starts at T.

    eta: 0 is deterministic after Ω_T; 1 with steps = T has the variances of `ancestral`.
    """
    omega = noise(0)
    bars = schedule.alphas_bar.tolist()
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


def trailing_timesteps(timesteps: int, steps: int) -> list[int]:
    """`steps` timesteps from T downwards, evenly spaced (Lin et al., 2023, Tab. 2).

    Raises:
        UserError: more steps than timesteps.
    """
    if steps > timesteps:
        raise UserError(f"sampling.steps is {steps}, but the diffusion has only {timesteps} timesteps; lower it")
    return [int(t) for t in np.round(np.arange(steps, 0, -1) * timesteps / steps)]


@torch.inference_mode()
def draw(
    model: DiffusionModel,
    cond: Condition,
    sample_id: Tensor,
    seed: int,
    draw_index: int,
    sampling: SamplingParams,
    batch: int,
    progress: Progress = no_progress,
) -> Tensor:
    """One draw of Ω_0 for each sample (Alg. 2), on the model's device, float32 (N, *shape).

    A sample's draw depends on (seed, draw_index, its id) alone; `batch` bounds memory only. Decode the codes with
    `model.representation`.

    Args:
        cond: I(x) of the N samples. sample_id: int64 (N,).
        progress: called with the count of samples done.
    """
    assert len(cond) == len(sample_id)
    model.eval()
    done: list[Tensor] = []
    for start in range(0, len(sample_id), batch):
        rows = slice(start, start + batch)
        ids = sample_id[rows].tolist()
        e0 = model.embed(cond.select(rows).to(model.device))

        def denoise(omega_t: Tensor, t: int, e0: Tensor = e0) -> tuple[Tensor, Tensor]:
            return model.denoise(omega_t, t, e0)

        def noise(k: int, ids: list[int] = ids) -> Tensor:
            return sample_normal(model.shape, ids, seed, "draw", draw_index, k).to(model.device)

        if sampling.sampler == "ancestral":
            code = ancestral(denoise, noise, model.schedule)
        elif sampling.sampler == "ddim":
            code = ddim(denoise, noise, model.schedule, sampling.steps, sampling.eta)
        else:
            code = dpm_solver(denoise, noise, model.schedule, sampling.steps)
        done.append(model.representation.normalise(code) if sampling.renormalise else code)
        progress(min(start + batch, len(sample_id)), "")
    return torch.cat(done) if done else torch.empty((0, *model.shape), device=model.device)


def dpm_solver(
    denoise: Denoise, noise: Noise, schedule: NoiseSchedule, steps: int, callback: Callback | None = None
) -> Tensor:
    """DPM-Solver++(2M) (Lu et al., 2022) by diffusers on the denoiser's Ω̂_0; trailing spacing, no noise after Ω_T.

    Raises:
        UserError: more steps than timesteps.
    """
    from diffusers import DPMSolverMultistepScheduler

    times = trailing_timesteps(schedule.timesteps, steps)
    betas = schedule.betas[1:].clone()
    if schedule.alphas_bar[-1] == 0:  # the solver works in log(signal / noise), so leave it a signal of at most 2^-12
        betas[-1] = max(1 - 2.0**-24 / float(schedule.alphas_bar[-2]), 0.5)
    solver = DPMSolverMultistepScheduler(  # holds state: one per call
        num_train_timesteps=schedule.timesteps,
        trained_betas=betas.tolist(),
        algorithm_type="dpmsolver++",
        solver_order=2,
        prediction_type="sample",
        final_sigmas_type="zero",
    )
    solver.set_timesteps(timesteps=[t - 1 for t in times])  # its own spacing has one step more for some counts
    omega = noise(0)
    for t, index in zip(times, solver.timesteps, strict=True):
        x0, _ = denoise(omega, t)
        if callback is not None:
            callback(t, omega, x0)
        omega = solver.step(x0, index, omega, return_dict=False)[0]
    return omega
