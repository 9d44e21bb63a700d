"""Params and toy scales for the tests."""

import torch

from ocd_core.samples import Condition


def data(count=300, seed=0):
    """ln ρ is a linear function of I(x) that spans six decades."""
    g = torch.Generator().manual_seed(seed)
    cond = Condition(*(torch.randn(count, d, generator=g) for d in (4, 3, 2)))
    return cond, (-6 + 2.5 * cond.base_output[:, 0] + 1.5 * cond.layer_input[:, 1]).exp()


def split(cond, rho, at=200):
    return cond.select(slice(at)), rho[:at], cond.select(slice(at, None)), rho[at:]
