import pytest
import torch

from ocd_core.diffusion.samplers.ancestral import ancestral
from ocd_core.diffusion.schedules import make_schedule, split_prediction
from tests.diffusion.samplers.common import DIFFUSERS_NAMES, fake_network


@pytest.mark.parametrize(("schedule", "timesteps"), [("paper", 10), ("released", 50)])
@pytest.mark.parametrize("kind", ["epsilon", "x0", "v"])
def test_ancestral_follows_diffusers_step_by_step(schedule, timesteps, kind):
    from diffusers import DDPMScheduler

    s = make_schedule(schedule, timesteps)
    theirs = DDPMScheduler(
        timesteps,
        trained_betas=s.betas[1:].tolist(),
        clip_sample=False,
        prediction_type=DIFFUSERS_NAMES[kind],
        variance_type="fixed_small",
    )
    seen = []
    bars = s.alphas_bar.tolist()

    def denoise(omega, t):
        return split_prediction(kind, fake_network(omega, t), omega, bars[t] ** 0.5, (1 - bars[t]) ** 0.5)

    # their noise is drawn inside of step(): give both the same generator, read in the same order
    g = torch.Generator().manual_seed(5)
    start = torch.randn(4, 6, generator=g, dtype=torch.float64)
    ours = torch.Generator().manual_seed(9)
    out = ancestral(
        denoise,
        lambda k: start if k == 0 else torch.randn(4, 6, generator=ours, dtype=torch.float64),
        s,
        lambda t, omega, x0: seen.append((t, omega)),
    )
    g, omega = torch.Generator().manual_seed(9), start
    theirs.set_timesteps(timesteps)
    for index, (t, ours_t) in zip(theirs.timesteps, seen, strict=True):
        assert t == int(index) + 1
        torch.testing.assert_close(ours_t, omega, rtol=1e-3, atol=1e-3)  # their tables are float32
        omega = theirs.step(fake_network(omega, t), index, omega, generator=g, return_dict=False)[0]
    torch.testing.assert_close(out, omega, rtol=1e-3, atol=1e-3)
