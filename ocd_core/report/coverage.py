"""How often targets lie within the central intervals of draws, which says whether the draws are calibrated.

Dims: K draws, N samples, L levels.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ocd_core.drawing import new_figure
from ocd_core.errors import UserError
from ocd_core.samples import flat

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LEVELS = tuple(k / 20 for k in range(1, 20))


def coverage(draws_KN: Tensor, target: Tensor, levels_L: Tensor) -> Tensor:
    """The share of numbers within each central interval of their draws, float64 (L,), in 0..1.

    The ends of an interval are quantiles of the draws, interpolated linearly.

    Args:
        draws_KN: floating (K, N, ...).
        target: floating (N, ...).
        levels_L: what each interval claims to hold, in 0..1.

    Raises:
        UserError: there are fewer than two draws, or draws and targets differ in shape.
    """
    if len(draws_KN) < 2:
        raise UserError("an interval needs at least two draws")
    if draws_KN.shape[1:] != target.shape:
        raise UserError(f"draws of shape {tuple(draws_KN.shape)} and targets of shape {tuple(target.shape)} differ")
    y_KND, t_ND = torch.stack([flat(draw) for draw in draws_KN.double()]), flat(target.double())
    low_LND, high_LND = (torch.quantile(y_KND, q, dim=0) for q in ((1 - levels_L) / 2, (1 + levels_L) / 2))
    inside_LND: Tensor = (t_ND >= low_LND) & (t_ND <= high_LND)
    return inside_LND.double().mean((1, 2))


def coverage_figure(draws: Mapping[str, Tensor], target: Tensor) -> "Figure":
    """Plot the share of targets within central intervals against what the intervals claim to hold.

    Args:
        draws: {what they are: floating (K, N, ...)}.
        target: floating (N, ...).

    Returns:
        a figure with one curve for each; below the diagonal, draws are too sure of themselves.

    Raises:
        UserError: see `coverage`.
    """
    figure, axes = new_figure(1, 1, (4.6, 4.2))
    axis = axes[0, 0]
    axis.plot([0, 1], [0, 1], "--", color="gray", linewidth=1)
    levels = torch.tensor(LEVELS, dtype=torch.float64)
    for name, draws_KN in draws.items():
        axis.plot(LEVELS, coverage(draws_KN, target, levels).tolist(), marker=".", label=name)
    axis.set(xlim=(0, 1), ylim=(0, 1), xlabel="central interval of the draws", ylabel="share of targets inside")
    axis.grid(alpha=0.3)
    axis.legend()
    return figure
