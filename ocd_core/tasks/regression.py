"""Metrics for domains whose outputs are numbers: of one answer, and of draws as a distribution.

Dims: K draws, N samples, D numbers of a sample.
"""

import torch
from torch import Tensor

from ocd_core.samples import only, paired
from ocd_core.tasks.metric import Metric

COVERED = 0.9  # the share of a distribution between the ends of its interval


def regression_metrics(scale: float = 1.0, unit: str = "", decimals: int = 4) -> tuple[Metric, ...]:
    """RMSE, MSE, CRPS, and the coverage of the central 90 % interval.

    Outputs and targets are float, (N,) or (N, ...), with as many numbers for a sample (otherwise a metric raises
    UserError); if there are several, each value is their mean.

    Args:
        scale: what a difference of 1 is in the reported unit (the standard deviation that divided the targets).
        unit: of the RMSE and the CRPS.
    """

    def squared(output: Tensor, target: Tensor) -> Tensor:
        output_ND, target_ND = paired(output, target)
        return scale**2 * (output_ND - target_ND).square().mean(1)

    def ranked(draws_KN: Tensor, target: Tensor) -> Tensor:
        return scale * crps(draws_KN, target)

    return (
        Metric(
            "rmse",
            squared,
            higher_is_better=False,
            finish=lambda v: v**0.5,
            unit=unit,
            decimals=decimals,
            about="the root of the mean squared error, in the unit of the target",
        ),
        Metric(
            "mse",
            squared,
            higher_is_better=False,
            decimals=decimals,
            about="the mean squared error, in the square of the target's unit",
        ),
        Metric(
            "crps",
            ranked,
            higher_is_better=False,
            unit=unit,
            decimals=decimals,
            sees="draws",
            about=(
                "the continuous ranked probability score of the answers as a distribution, in the unit of the target; "
                "of a single answer, its absolute error"
            ),
        ),
        Metric(
            "coverage_90",
            covered,
            higher_is_better=None,
            unit="%",
            decimals=1,
            sees="draws",
            about="how many targets lie in the central 90 % of the answers as a distribution; 90 is right",
        ),
    )


def crps(draws_KN: Tensor, target: Tensor) -> Tensor:
    """The continuous ranked probability score of K equally likely draws, (N,), 0 at best.

    mean_k |y_k − t| − ½ mean_{k,l} |y_k − y_l| (Gneiting and Raftery, 2007, Eq. 21): of one draw, the absolute error.
    """
    y_KND, t_ND = _numbers(draws_KN, target)
    count = len(y_KND)
    # over sorted draws, Σ_{k,l} |y_k − y_l| = 2 Σ_k (2k − K − 1) y_(k)
    rank_K = 2 * torch.arange(1, count + 1, dtype=y_KND.dtype, device=y_KND.device) - count - 1
    spread_ND = (rank_K[:, None, None] * y_KND.sort(0).values).sum(0) / count**2
    score_N: Tensor = ((y_KND - t_ND).abs().mean(0) - spread_ND).mean(1)
    return score_N


def covered(draws_KN: Tensor, target: Tensor) -> Tensor:
    """The percentage of a sample's numbers within the central 90 % interval of its draws, (N,); NaN for one draw.

    The ends are the quantiles .05 and .95 of the draws, interpolated linearly.
    """
    y_KND, t_ND = _numbers(draws_KN, target)
    if len(y_KND) < 2:
        return t_ND.new_full((len(t_ND),), torch.nan)
    ends = y_KND.new_tensor([(1 - COVERED) / 2, (1 + COVERED) / 2])
    low_ND, high_ND = torch.quantile(y_KND, ends, dim=0)
    inside_ND: Tensor = (t_ND >= low_ND) & (t_ND <= high_ND)
    return inside_ND.to(y_KND.dtype).mean(1) * 100


def _numbers(draws_KN: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Draws (K, N, D) and targets (N, D)."""
    pairs = [paired(only(draws_N), target) for draws_N in draws_KN]
    return torch.stack([output_ND for output_ND, _ in pairs]), pairs[0][1]
