import pytest
import torch

from ocd_core.diffusion.samplers.ancestral import ancestral
from ocd_core.diffusion.samplers.ddim import ddim
from ocd_core.diffusion.schedules import make_schedule, split_prediction
from tests.diffusion.samplers.common import DIFFUSERS_NAMES, fake_network, gaussian_denoiser, generator_noise


def test_few_ddim_steps_on_a_gaussian_follow_the_exact_map():
    """For a Gaussian the map from Ω_T to Ω_0 is linear; more steps come nearer to std(Ω_0) = 0.6."""
    s = make_schedule("zero_snr", 1000)
    gaps = []
    for steps in (5, 20, 100):
        out = ddim(gaussian_denoiser(s, 0.0, 0.36), lambda k: torch.ones(1, dtype=torch.float64), s, steps)
        gaps.append(abs(float(out) - 0.6))
    assert gaps[0] > gaps[1] > gaps[2]
    assert gaps[2] < 0.01


@pytest.mark.parametrize(("timesteps", "steps"), [(10, 10), (50, 10), (1000, 10)])
@pytest.mark.parametrize("kind", ["epsilon", "x0", "v"])
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_ddim_follows_diffusers_step_by_step(timesteps, steps, kind, eta):
    from diffusers import DDIMScheduler

    s = make_schedule("released", timesteps)
    theirs = DDIMScheduler(
        timesteps,
        trained_betas=s.betas[1:].tolist(),
        clip_sample=False,
        prediction_type=DIFFUSERS_NAMES[kind],
        timestep_spacing="trailing",
        set_alpha_to_one=True,
    )
    bars = s.alphas_bar.tolist()
    noise, seen = generator_noise((4, 6)), []

    def denoise(omega, t):
        return split_prediction(kind, fake_network(omega, t / 50), omega, bars[t] ** 0.5, (1 - bars[t]) ** 0.5)

    out = ddim(denoise, noise, s, steps, eta, lambda t, omega, x0: seen.append((t, omega)))
    theirs.set_timesteps(steps)
    omega = noise(0)
    for k, (index, (t, ours_t)) in enumerate(zip(theirs.timesteps, seen, strict=True), start=1):
        assert t == int(index) + 1
        torch.testing.assert_close(ours_t, omega, rtol=1e-4, atol=1e-4)
        omega = theirs.step(
            fake_network(omega, t / 50), index, omega, eta=eta, variance_noise=noise(k), return_dict=False
        )[0]
    torch.testing.assert_close(out, omega, rtol=1e-4, atol=1e-4)


def test_ddim_with_eta_one_and_all_steps_is_ancestral():
    s = make_schedule("zero_snr", 12)
    denoise = gaussian_denoiser(s, 0.4, 2.0)
    noise = generator_noise((5, 3))
    torch.testing.assert_close(ddim(denoise, noise, s, 12, 1.0), ancestral(denoise, noise, s))
