"""The losses of the scale network, and measures of how good an estimate of ρ is.

Dims: N samples.
"""

import math

import numpy as np
import torch
from torch import Tensor

EQ8_EPSILON = 1e-4  # inside the logarithm of Eq. 8: errors below 1 % of ρ count alike, and the loss is never -infinity


def above_zero(rho_N: Tensor) -> Tensor:
    """ρ in float32, with 0 (overfitting moved nothing) replaced by the smallest positive ρ: Eq. 8 divides by ρ."""
    return rho_N.float().clamp_min(max(float(rho_N[rho_N > 0].min()), torch.finfo(torch.float32).tiny))


def eq8_loss(predicted_N: Tensor, rho_N: Tensor) -> Tensor:
    """10 log10(|ρ̂ - ρ|² / ρ² + ε) of each sample (Eq. 8), ρ > 0, in decibels; (N,)."""
    ratio_N = ((predicted_N - rho_N) / rho_N).abs()
    far_N = ratio_N > 1e9  # from 1.8e19 the square is infinite in float32; here ε is below rounding
    near = torch.log10(torch.where(far_N, 1.0, ratio_N) ** 2 + EQ8_EPSILON)
    return 10 * torch.where(far_N, 2 * torch.log10(torch.where(far_N, ratio_N, 1.0)), near)


def log_mse_loss(predicted_N: Tensor, rho_N: Tensor) -> Tensor:
    """(ln ρ̂ - ln ρ)² of each sample, ρ > 0; (N,)."""
    return (predicted_N / rho_N).log() ** 2


LOSSES = {"eq8": eq8_loss, "log_mse": log_mse_loss}


def scale_metrics(predicted_N: Tensor, rho_N: Tensor) -> dict[str, float]:
    """How good ρ̂ is on held-out samples with ρ > 0 (others are left out).

    median_abs_log_ratio: of |ln(ρ̂ / ρ)|, 0.69 is a factor of two. rank_correlation: Spearman's. eq8_db: the mean loss
    of Eq. 8: 0 for ρ̂ = 0, and negative if ρ̂ is better than that. NaN if it is not defined: no samples, ρ̂ = 0 (for the
    ratio), fewer than two samples or equal values (for the correlation).
    """
    from scipy.stats import rankdata

    kept = rho_N > 0
    predicted_N, rho_N = predicted_N[kept].double().cpu(), rho_N[kept].double().cpu()
    if len(rho_N) == 0:
        return dict.fromkeys(("median_abs_log_ratio", "rank_correlation", "eq8_db"), math.nan)
    ranks = np.stack([rankdata(predicted_N.numpy()), rankdata(rho_N.numpy())])
    defined = bool((ranks.std(axis=1) > 0).all())
    ratio = median_abs_log_ratio(predicted_N, rho_N)
    return {
        "median_abs_log_ratio": ratio if math.isfinite(ratio) else math.nan,
        "rank_correlation": float(np.corrcoef(ranks)[0, 1]) if defined else math.nan,
        "eq8_db": float(eq8_loss(predicted_N, rho_N).mean()),
    }


def median_abs_log_ratio(predicted_N: Tensor, rho_N: Tensor) -> float:
    """The median of |ln(ρ̂ / ρ)|; 0.69 is a factor of two."""
    ratios = (predicted_N.double() / rho_N.double()).log().abs()
    return float(np.median(ratios.numpy()))
