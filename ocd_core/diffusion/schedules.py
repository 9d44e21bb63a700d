"""Noise schedules, and the three quantities that a denoiser can predict.

The index t runs from 1 to T, as in the paper; entry 0 of every table is the noiseless end (β_0 = 0, ᾱ_0 = 1).
"""

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

from ocd_core.errors import UserError

Prediction = Literal["epsilon", "x0", "v"]
MIN_SNR_GAMMA = 5.0


@dataclass(frozen=True, eq=False)
class NoiseSchedule:
    """β_t, α_t = 1 - β_t and ᾱ_t = Π α_k, each float64 (T + 1,); entry 0 is the noiseless end."""

    betas: Tensor
    alphas: Tensor
    alphas_bar: Tensor

    @cached_property
    def bars(self) -> tuple[float, ...]:
        """ᾱ_t as plain numbers, for a sampler's step sizes."""
        return tuple(self.alphas_bar.tolist())

    @classmethod
    def from_betas(cls, betas_T: Tensor) -> "NoiseSchedule":
        """From β_1 .. β_T."""
        betas = torch.cat([torch.zeros(1, dtype=torch.float64), betas_T.double()])
        return cls(betas, 1 - betas, torch.cumprod(1 - betas, 0))

    @property
    def timesteps(self) -> int:
        """T."""
        return len(self.betas) - 1

    @property
    def snr(self) -> Tensor:
        """Signal to noise ᾱ_t / (1 - ᾱ_t), float64 (T + 1,); infinite at 0."""
        return self.alphas_bar / (1 - self.alphas_bar)


def make_schedule(name: str, timesteps: int) -> NoiseSchedule:
    """A schedule by name.

    - `paper`: β_t = (1e-4 (T - t) + 1e-2 (t - 1)) / (T - 1) (Alg. 1, line 8). With the paper's T = 10, much signal is
      left at t = T: ᾱ_T = 0.951.
    - `released`: linear from 1e-6 to 1e-2, as in the authors' code, which has T = 1000 (ᾱ_T = 0.0066).
    - `zero_snr`: ᾱ_t = cos²(π/2 · t/T'), the cosine schedule of Nichol and Dhariwal (2021) with its offset of 0.008
      and without its cap on β, so that ᾱ_T = 0 for every T: a draw then starts from what training saw at t = T.

    Raises:
        UserError: unknown name, or T < 2.
    """
    if timesteps < 2:
        raise UserError(f"a schedule needs at least 2 timesteps, not {timesteps}")
    t = torch.arange(1, timesteps + 1, dtype=torch.float64)
    last = timesteps - 1
    if name == "paper":
        return NoiseSchedule.from_betas((1e-4 * (timesteps - t) + 1e-2 * (t - 1)) / last)
    if name == "released":
        return NoiseSchedule.from_betas((1e-6 * (timesteps - t) + 1e-2 * (t - 1)) / last)
    if name == "zero_snr":
        angles = (torch.arange(timesteps + 1, dtype=torch.float64) / timesteps + 0.008) / 1.008 * math.pi / 2
        alphas_bar = angles.cos() ** 2
        alphas_bar = alphas_bar / alphas_bar[0]
        alphas_bar[-1] = 0.0  # cos(π/2) is 6e-17 in floating point
        return NoiseSchedule.from_betas(1 - alphas_bar[1:] / alphas_bar[:-1])
    raise UserError(f"unknown schedule {name!r}; known are paper, released, zero_snr")


def add_noise(x0: Tensor, epsilon: Tensor, signal: Tensor, noise: Tensor) -> Tensor:
    """Ω_t = sqrt(ᾱ_t) Δ + sqrt(1 - ᾱ_t) ε (Eq. 6); signal and noise are the two roots, broadcastable."""
    return signal * x0 + noise * epsilon


def training_target(kind: Prediction, x0: Tensor, epsilon: Tensor, signal: Tensor, noise: Tensor) -> Tensor:
    """What the denoiser is trained to predict: ε (Eq. 7), Δ itself, or v = sqrt(ᾱ) ε - sqrt(1 - ᾱ) Δ."""
    if kind == "epsilon":
        return epsilon
    if kind == "x0":
        return x0
    return signal * epsilon - noise * x0


def split_prediction(
    kind: Prediction, output: Tensor, omega_t: Tensor, signal: float | Tensor, noise: float | Tensor
) -> tuple[Tensor, Tensor]:
    """(Ω̂_0, ε̂) from a denoiser's output at Ω_t; signal = sqrt(ᾱ_t), noise = sqrt(1 - ᾱ_t) > 0.

    `epsilon` needs signal > 0, which the check of the params ensures.
    """
    if kind == "epsilon":
        return (omega_t - noise * output) / signal, output
    if kind == "x0":
        return output, (omega_t - signal * output) / noise
    return signal * omega_t - noise * output, noise * omega_t + signal * output


def min_snr_weight(kind: Prediction, snr: Tensor) -> Tensor:
    """The weight of each sample's squared error under min-SNR-γ (Hang et al., 2023), γ = 5.

    It is min(SNR, γ) for the error of Ω_0, min(SNR, γ) / SNR for that of ε, and min(SNR, γ) / (SNR + 1) for that of v.
    """
    clipped = snr.clamp(max=MIN_SNR_GAMMA)
    return clipped / {"epsilon": snr, "x0": torch.ones_like(snr), "v": snr + 1}[kind]
