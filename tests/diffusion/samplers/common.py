"""Noise and denoisers for the tests of samplers."""

import torch

DIFFUSERS_NAMES = {"epsilon": "epsilon", "x0": "sample", "v": "v_prediction"}  # of what a denoiser predicts


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


def fake_network(omega, t):
    """Any nonlinear function of both."""
    return torch.tanh(omega * 0.7 + 0.05 * t) + 0.1 * omega.roll(1, -1)
