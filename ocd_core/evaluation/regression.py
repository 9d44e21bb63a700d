"""Kernel ridge regression of coordinates of Δ on I(x); width and penalty by cross-validation.

Dims: N training rows, M new samples, D features of I(x), d coordinates of Δ.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from ocd_core.codes.condition import Standardise, features
from ocd_core.evaluation.distances import squared_distances
from ocd_core.evaluation.weighted_ridge import WeightedRidge
from ocd_core.rng import permutation
from ocd_core.samples import Condition
from ocd_core.strict import Positive, StrictModel


class RidgeParams(StrictModel):
    """`controls.ridge`; width and penalty are chosen by cross-validation on training samples."""

    rows: Annotated[int, Field(ge=4, le=10**6)]  # maximum of training rows, all those of a seeded subset of the samples
    folds: Annotated[int, Field(ge=2, le=1000)]  # replicas of a sample are in one fold
    widths: Annotated[list[Positive], Field(min_length=1)]  # of the RBF, times the median distance of samples
    penalties: Annotated[list[Positive], Field(min_length=1)]
    metric: Literal["euclidean", "gauss_newton"]  # of errors: that of coordinates, or of each row's own loss


class Ridge(nn.Module):
    """K(x, X) (K(X, X) + λ)⁻¹ Y with K = exp(-γ ‖x - x'‖²) on standardised features; no intercept."""

    x_ND: Tensor
    alpha_Nd: Tensor
    gamma: Tensor

    def __init__(self, rows: int, inputs: int, outputs: int) -> None:
        super().__init__()
        self.standardise = Standardise(inputs)
        self.register_buffer("x_ND", torch.zeros(rows, inputs))  # standardised
        self.register_buffer("alpha_Nd", torch.zeros(rows, outputs, dtype=torch.float64))
        self.register_buffer("gamma", torch.ones((), dtype=torch.float64))

    @torch.no_grad()
    def forward(self, cond: Condition) -> Tensor:
        """Coordinates of Δ, float32 (M, d)."""
        x_MD = self.standardise(features(cond))
        predicted_Md: Tensor = kernel(x_MD, self.x_ND, self.gamma) @ self.alpha_Nd
        return predicted_Md.float()


@dataclass(frozen=True)
class RidgeFit:
    """metrics: rows, width, penalty, gamma, and by cross-validation the mean squared error and R² of coordinates."""

    ridge: Ridge
    metrics: dict[str, float]


def kernel(x_MD: Tensor, y_ND: Tensor, gamma: Tensor) -> Tensor:
    """exp(-γ ‖x - y‖²), float64 (M, N)."""
    return (-gamma * squared_distances(x_MD, y_ND)).exp_()


def subset(sample_id_N: Tensor, rows: int, seed: int) -> Tensor:
    """Row numbers of a seeded subset of samples with all their replicas: at most `rows`, but at least one sample."""
    samples = torch.unique(sample_id_N)
    replicas = len(sample_id_N) // len(samples)
    kept = samples[permutation(len(samples), seed, "ridge subset")[: max(1, rows // replicas)]]
    return torch.isin(sample_id_N, kept).nonzero().squeeze(1)


@torch.no_grad()
def fit_ridge(
    cond: Condition,
    code_Nd: Tensor,
    sample_id_N: Tensor,
    params: RidgeParams,
    seed: int,
    metric_of: Callable[[Tensor], Tensor] | None = None,
) -> RidgeFit:
    """Fit on training rows; width and penalty by cross-validation with all replicas of a sample in one fold.

    metric_of: the metrics (n, d, d) of n rows in which errors count, in fitting and in cross-validation; None: all
    coordinates alike.

    γ = 1 / (2 w² m), where m is the median squared distance of different samples and w one of `params.widths`.

    The error of a left-out fold F is exact without another fit: with A = (K + λ)⁻¹, it is (A_FF)⁻¹ (A Y)_F.
    """
    rows = subset(sample_id_N, params.rows, seed)
    cond, y_Nd, groups_N = cond.select(rows), code_Nd[rows].double(), sample_id_N[rows]
    x_ND = features(cond)
    standardise = Standardise.from_data(x_ND)
    x_ND = standardise(x_ND)
    distance_NN = squared_distances(x_ND, x_ND)
    apart = groups_N[:, None] != groups_N
    # if all features are dead, the median is 0: then every kernel is 1
    median = float(distance_NN[apart].median().clamp_min(1e-12)) if apart.any() else 1.0
    samples, group_N = torch.unique(groups_N, return_inverse=True)
    fold_N = (permutation(len(samples), seed, "ridge folds") % params.folds)[group_N]
    weighted = None if metric_of is None else WeightedRidge(y_Nd, metric_of(rows))
    found = []
    for width in params.widths:
        gamma = 1 / (2 * width**2 * median)
        kernel_NN = (-gamma * distance_NN).exp()
        for penalty in params.penalties:
            if weighted is None:
                found.append((_left_out_error(kernel_NN, y_Nd, penalty, fold_N), width, penalty, gamma))
            else:
                found.append((weighted.error(kernel_NN, penalty, fold_N), width, penalty, gamma))
    error, width, penalty, gamma = min(found)
    ridge = Ridge(len(rows), x_ND.shape[1], y_Nd.shape[1])
    ridge.standardise = standardise
    ridge.x_ND.copy_(x_ND)
    ridge.gamma.fill_(gamma)
    kernel_NN = kernel(x_ND, x_ND, ridge.gamma)
    gap_Nd = y_Nd - y_Nd.mean(0)
    if weighted is None:
        regularised_NN = kernel_NN + penalty * torch.eye(len(rows), dtype=torch.float64)
        ridge.alpha_Nd.copy_(torch.cholesky_solve(y_Nd, torch.linalg.cholesky(regularised_NN)))
        variance = float(gap_Nd.square().mean())
    else:
        ridge.alpha_Nd.copy_(weighted.solve(kernel_NN, penalty))
        variance = weighted.size(gap_Nd)
    metrics = {
        "rows": float(len(rows)),
        "width": width,
        "penalty": penalty,
        "gamma": gamma,
        "cv_mse": error,
        "cv_r2": 1 - error / variance if variance > 0 else 0.0,
    }
    return RidgeFit(ridge, metrics)


def _left_out_error(kernel_NN: Tensor, y_Nd: Tensor, penalty: float, fold_N: Tensor) -> float:
    """Mean squared error of the rows of each fold under a fit to the others."""
    regularised_NN = kernel_NN + penalty * torch.eye(len(kernel_NN), dtype=torch.float64)
    inverse_NN = torch.cholesky_inverse(torch.linalg.cholesky(regularised_NN))
    alpha_Nd = inverse_NN @ y_Nd
    total = 0.0
    for fold in torch.unique(fold_N):
        at = (fold_N == fold).nonzero().squeeze(1)
        total += float(torch.linalg.solve(inverse_NN[at][:, at], alpha_Nd[at]).square().sum())
    return total / y_Nd.numel()
