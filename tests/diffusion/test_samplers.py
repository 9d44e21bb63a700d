import numpy as np
import pytest
import torch

from ocd_core.codes.condition import ConditionEncoder
from ocd_core.codes.representation import Factored
from ocd_core.diffusion.model import DiffusionModel
from ocd_core.diffusion.samplers import ancestral, ddim, dpm_solver, draw, trailing_timesteps
from ocd_core.diffusion.sampling_params import SamplingParams
from ocd_core.diffusion.schedules import make_schedule, split_prediction
from ocd_core.errors import UserError
from tests.diffusion.common import condition, diffusion_params


def generator_noise(shape, seed=0):
    """noise(k), the same numbers for the same k."""
    return lambda k: torch.randn(shape, generator=torch.Generator().manual_seed(1000 * seed + k), dtype=torch.float64)


def gaussian_denoiser(schedule, mean, variance):
    """The best denoiser for Ω_0 ~ N(mean, variance): the conditional mean, in closed form."""

    def denoise(omega, t):
        bar = float(schedule.alphas_bar[t])
        gain = bar**0.5 * variance / (bar * variance + 1 - bar)
        x0 = mean + gain * (omega - bar**0.5 * mean)
        return x0, (omega - bar**0.5 * x0) / (1 - bar) ** 0.5

    return denoise


SAMPLERS = {
    "ancestral": lambda d, n, s: ancestral(d, n, s),
    "ddim": lambda d, n, s: ddim(d, n, s, 10),
    "ddim eta": lambda d, n, s: ddim(d, n, s, 10, 1.0),
    "dpm": lambda d, n, s: dpm_solver(d, n, s, 10),
}


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize(("schedule", "timesteps"), [("paper", 10), ("released", 1000), ("zero_snr", 10)])
def test_exact_on_a_point_mass(sampler, schedule, timesteps):
    s = make_schedule(schedule, timesteps)
    point = torch.tensor([0.3, -2.0, 5.0], dtype=torch.float64)

    def denoise(omega, t):
        bar = float(s.alphas_bar[t])
        x0 = point.expand_as(omega)
        return x0, (omega - bar**0.5 * x0) / (1 - bar) ** 0.5

    out = SAMPLERS[sampler](denoise, generator_noise((7, 3)), s)
    torch.testing.assert_close(out, point.expand(7, 3).clone(), rtol=1e-9, atol=1e-9)


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


def test_few_ddim_steps_on_a_gaussian_follow_the_exact_map():
    """For a Gaussian the map from Ω_T to Ω_0 is linear; more steps come nearer to std(Ω_0) = 0.6."""
    s = make_schedule("zero_snr", 1000)
    gaps = []
    for steps in (5, 20, 100):
        out = ddim(gaussian_denoiser(s, 0.0, 0.36), lambda k: torch.ones(1, dtype=torch.float64), s, steps)
        gaps.append(abs(float(out) - 0.6))
    assert gaps[0] > gaps[1] > gaps[2]
    assert gaps[2] < 0.01


def fake_network(omega, t):
    """Any nonlinear function of both."""
    return torch.tanh(omega * 0.7 + 0.05 * t) + 0.1 * omega.roll(1, -1)


@pytest.mark.parametrize(("schedule", "timesteps"), [("paper", 10), ("released", 50)])
@pytest.mark.parametrize("kind", ["epsilon", "x0", "v"])
def test_ancestral_follows_diffusers_step_by_step(schedule, timesteps, kind):
    from diffusers import DDPMScheduler

    s = make_schedule(schedule, timesteps)
    names = {"epsilon": "epsilon", "x0": "sample", "v": "v_prediction"}
    theirs = DDPMScheduler(
        timesteps, trained_betas=s.betas[1:].tolist(), clip_sample=False, prediction_type=names[kind],
        variance_type="fixed_small",
    )  # fmt: skip
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


@pytest.mark.parametrize(("timesteps", "steps"), [(10, 10), (50, 10), (1000, 10)])
@pytest.mark.parametrize("kind", ["epsilon", "x0", "v"])
@pytest.mark.parametrize("eta", [0.0, 0.5, 1.0])
def test_ddim_follows_diffusers_step_by_step(timesteps, steps, kind, eta):
    from diffusers import DDIMScheduler

    s = make_schedule("released", timesteps)
    names = {"epsilon": "epsilon", "x0": "sample", "v": "v_prediction"}
    theirs = DDIMScheduler(
        timesteps, trained_betas=s.betas[1:].tolist(), clip_sample=False, prediction_type=names[kind],
        timestep_spacing="trailing", set_alpha_to_one=True,
    )  # fmt: skip
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


def test_trailing_timesteps():
    assert trailing_timesteps(1000, 10) == [1000, 900, 800, 700, 600, 500, 400, 300, 200, 100]
    assert trailing_timesteps(10, 10) == list(range(10, 0, -1))
    assert trailing_timesteps(10, 3) == [10, 7, 3]
    with pytest.raises(UserError, match=r"sampling.steps is 11, but the diffusion has only 10 timesteps"):
        trailing_timesteps(10, 11)


def small_model(**changes):
    cond = condition(20)
    torch.manual_seed(0)
    params = diffusion_params(**changes)
    return DiffusionModel(ConditionEncoder.from_condition(cond, params.embedding), Factored(6, 7, True), params), cond


@pytest.mark.parametrize("sampler", ["ancestral", "ddim", "dpm"])
def test_a_draw_depends_on_seed_draw_and_sample_only(sampler):
    model, cond = small_model()
    sampling = SamplingParams(sampler=sampler, steps=5, eta=0.5, renormalise=False)
    ids = torch.arange(100, 120)
    codes = draw(model, cond, ids, 3, 0, sampling, batch=20)
    assert codes.shape == (20, 6)
    torch.testing.assert_close(draw(model, cond, ids, 3, 0, sampling, batch=7), codes)
    order = torch.randperm(20, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(draw(model, cond.select(order), ids[order], 3, 0, sampling, batch=9), codes[order])
    for other in (draw(model, cond, ids, 4, 0, sampling, 20), draw(model, cond, ids, 3, 1, sampling, 20)):
        assert (other - codes).abs().amax(1).min() > 1e-3


def test_renormalise_gives_codes_of_one_norm():
    model, cond = small_model()
    raw = SamplingParams(sampler="ddim", steps=5, eta=0.0, renormalise=False)
    free = draw(model, cond, torch.arange(20), 0, 0, raw, 20)
    unit = draw(model, cond, torch.arange(20), 0, 0, raw.model_copy(update={"renormalise": True}), 20)
    np.testing.assert_allclose(unit.norm(dim=1), 6**0.5, rtol=1e-5)
    torch.testing.assert_close(free / free.norm(dim=1, keepdim=True) * 6**0.5, unit)
    assert free.norm(dim=1).std() > 1e-3


def test_no_samples_and_progress():
    model, cond = small_model()
    sampling = SamplingParams(sampler="ddim", steps=2, eta=0.0, renormalise=True)
    assert draw(model, cond.select(slice(0)), torch.arange(0), 0, 0, sampling, 4).shape == (0, 6)
    seen = []
    draw(model, cond, torch.arange(20), 0, 0, sampling, 8, lambda done, _note: seen.append(done))
    assert seen == [8, 16, 20]
