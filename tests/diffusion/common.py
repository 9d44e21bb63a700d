"""Params and toy data that several test files use."""

from typing import Any

import torch
from torch import Tensor

from ocd_core.codes.params import RepresentationParams
from ocd_core.config import Params
from ocd_core.diffusion.params import DenoiserParams, DiffusionParams
from ocd_core.presets import apply_preset
from ocd_core.samples import Condition
from tests.conftest import REPOSITORY


def denoiser_params(**changes: Any) -> DenoiserParams:
    return DenoiserParams(**{"name": "mlp", "width": 64, "depth": 2, "multipliers": [1], "dropout": 0.0, **changes})


def diffusion_params(**changes: Any) -> DiffusionParams:
    denoiser = changes.get("denoiser", denoiser_params())
    values: dict[str, Any] = {
        "representation": RepresentationParams(name="factored" if denoiser.name == "mlp" else "dense", components=4),
        "denoiser": denoiser,
        "embedding": 32,
        "schedule": "zero_snr",
        "timesteps": 20,
        "prediction": "x0",
        "loss": "mse",
        "unit_variance": True,
        "updates": 20,
        "batch_size": 16,
        "accumulate": 1,
        "precision": "float32",
        "lr": 1e-3,
        "lr_schedule": "constant",
        "warmup": 0,
        "ema": 0.9,
        "clip": 1.0,
        "validate_every": 10,
        "patience": 100,
    }
    return DiffusionParams(**{**values, **changes})


def condition(count: int, seed: int = 0) -> Condition:
    g = torch.Generator().manual_seed(seed)
    return Condition(*(torch.randn(count, d, generator=g) for d in (7, 5, 3)))


def unit_codes(count: int, entries: int, seed: int = 1) -> Tensor:
    """Codes of norm sqrt(entries)."""
    x = torch.randn(count, entries, generator=torch.Generator().manual_seed(seed))
    return x / x.norm(dim=1, keepdim=True) * entries**0.5


def preset_params(preset: str, task: str = "mnist") -> Params:
    return apply_preset(preset, task, REPOSITORY)[0]
