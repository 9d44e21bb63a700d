"""`dpm`: DPM-Solver++ of second order."""

from torch import Tensor

from ocd_core.diffusion.samplers.base import Callback, Denoise, Noise, trailing_timesteps
from ocd_core.diffusion.sampling_params import SamplingParams
from ocd_core.diffusion.schedules import NoiseSchedule


def dpm_solver(
    denoise: Denoise, noise: Noise, schedule: NoiseSchedule, steps: int, callback: Callback | None = None
) -> Tensor:
    """DPM-Solver++(2M) (Lu et al., 2022) from diffusers, on the denoiser's Ω̂_0; trailing spacing, no noise after Ω_T.

    Raises:
        UserError: more steps than timesteps.
    """
    from diffusers import DPMSolverMultistepScheduler

    times = trailing_timesteps(schedule.timesteps, steps)
    betas = schedule.betas[1:].clone()
    if schedule.alphas_bar[-1] == 0:  # the solver uses log(signal / noise), so leave it a signal of at most 2^-12
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


def sample(denoise: Denoise, noise: Noise, schedule: NoiseSchedule, sampling: SamplingParams) -> Tensor:
    """See `ocd_core.diffusion.samplers.base.Sampler`."""
    return dpm_solver(denoise, noise, schedule, sampling.steps)
