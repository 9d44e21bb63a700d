"""Params and toy scales for the tests."""

import torch

from ocd_core.samples import Condition
from ocd_core.scale.params import ScaleParams


def params(warm=0, **changes):
    values = {
        "gain": "none",
        "loss": "eq8",
        "warm_start": {"updates": warm, "lr": 3e-3},
        "width": 32,
        "updates": 300,
        "batch_size": 64,
        "lr": 3e-3,
        "validate_every": 50,
        "patience": 20,
    }
    return ScaleParams.model_validate({**values, **changes})


def data(count=300, seed=0):
    """ln ρ is a linear function of I(x) that spans six decades."""
    g = torch.Generator().manual_seed(seed)
    cond = Condition(*(torch.randn(count, d, generator=g) for d in (4, 3, 2)))
    return cond, (-6 + 2.5 * cond.base_output[:, 0] + 1.5 * cond.layer_input[:, 1]).exp()


def split(cond, rho, at=200):
    return cond.select(slice(at)), rho[:at], cond.select(slice(at, None)), rho[at:]
