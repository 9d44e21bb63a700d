"""Networks and data of strangers, and options that make everything quick."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

QUICK: dict[str, dict[str, Any]] = {
    "scoring": {"samples": 4, "draws": 10},
    "overfit": {"steps": 2, "lr": 0.1},
    "diffusion": {
        "updates": 6, "validate_every": 3, "timesteps": 20, "embedding": 8, "warmup": 0,
        "denoiser": {"width": 8, "depth": 1},
    },
    "scale": {"updates": 6, "validate_every": 3, "width": 8},
    "controls": {"fit": ["mean_delta"]},
    "evaluate": {"rows": ["base", "mean_delta", "ocd", "ocd_ensemble", "bound"], "draws": [2], "bootstrap": 100},
}  # fmt: skip


def cross_entropy(output: Tensor, target: Tensor) -> Tensor:
    return F.cross_entropy(output, target, reduction="none")


def points(count: int, seed: int = 0, features: int = 6) -> tuple[Tensor, Tensor]:
    """Points and whether each is above a curve."""
    x = torch.randn(count, features, generator=torch.Generator().manual_seed(seed))
    return x, (x[:, 0] + x[:, 1] ** 2 > 1).long()


def perceptron(inputs: int = 6, outputs: int = 2, seed: int = 0) -> nn.Sequential:
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(inputs, 8), nn.ReLU(), nn.Linear(8, outputs))
