"""Kernel ridge regression of vectors whose errors count by a metric of each row's own.

A direction in which a row's metric is small says little about f, and there the penalty decides. (With one metric for
all rows and the penalty in it too, every coordinate would be a ridge regression of its own, without any metric.)

Dims: N rows, d coordinates.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor

_ITERATIONS = 2000
_EXACT, _ROUGH = 1e-8, 1e-4  # ‖residual‖ / ‖Lᵀ y‖, of an answer and of one that is only compared with others


@dataclass
class WeightedRidge:
    """Minimise Σ_n (y_n − f_n)ᵀ M_n (y_n − f_n) + λ Σ_j ‖f^j‖² over f = K α; float64.

    With M_n = L_n L_nᵀ and L the block diagonal of all L_n, α = L β and (Lᵀ (K ⊗ I) L + λ) β = Lᵀ y, which conjugate
    gradients solve with products of N×N and d×d matrices; the matrix of N·d rows is never formed.

    Args:
        y_Nd: what is regressed. metric_Ndd: positive definite.
    """

    y_Nd: Tensor
    metric_Ndd: Tensor
    _root_Ndd: Tensor = field(init=False)

    def __post_init__(self) -> None:
        self._root_Ndd = torch.linalg.cholesky(self.metric_Ndd.double())

    def solve(self, kernel_NN: Tensor, penalty: float, rows: Tensor | None = None, tolerance: float = _EXACT) -> Tensor:
        """α, (N, d).

        Args:
            kernel_NN: K of the rows that count. rows: which these are; None: all.
        """
        y_Nd, root_Ndd = self.y_Nd, self._root_Ndd
        if rows is not None:
            y_Nd, root_Ndd = y_Nd[rows], root_Ndd[rows]

        def apply(beta_Nd: Tensor) -> Tensor:
            return _transposed(root_Ndd, kernel_NN @ _times(root_Ndd, beta_Nd)) + penalty * beta_Nd

        right_Nd = _transposed(root_Ndd, y_Nd)
        beta_Nd, residual_Nd = torch.zeros_like(right_Nd), right_Nd.clone()
        direction_Nd, square = residual_Nd, residual_Nd.square().sum()
        enough = tolerance**2 * square
        for _ in range(_ITERATIONS):
            if square <= enough:
                break
            product_Nd = apply(direction_Nd)
            step = square / (direction_Nd * product_Nd).sum()
            beta_Nd = beta_Nd + step * direction_Nd
            residual_Nd = residual_Nd - step * product_Nd
            before, square = square, residual_Nd.square().sum()
            direction_Nd = residual_Nd + square / before * direction_Nd
        return _times(root_Ndd, beta_Nd)

    def error(self, kernel_NN: Tensor, penalty: float, fold_N: Tensor) -> float:
        """The mean of (y − f)ᵀ M (y − f) / d over rows, each fold under a fit to the others."""
        total = 0.0
        for fold in torch.unique(fold_N):
            out, others = (fold_N == fold).nonzero()[:, 0], (fold_N != fold).nonzero()[:, 0]
            alpha_Nd = self.solve(kernel_NN[others][:, others], penalty, others, _ROUGH)
            gap_Nd = self.y_Nd[out] - kernel_NN[out][:, others] @ alpha_Nd
            total += float(_times(self.metric_Ndd[out].double(), gap_Nd).mul(gap_Nd).sum())
        return total / self.y_Nd.numel()

    def size(self, gap_Nd: Tensor) -> float:
        """The mean of gapᵀ M gap / d over all rows."""
        return float(_times(self.metric_Ndd.double(), gap_Nd).mul(gap_Nd).mean())


def _times(matrix_Ndd: Tensor, x_Nd: Tensor) -> Tensor:
    return (matrix_Ndd @ x_Nd[:, :, None])[:, :, 0]


def _transposed(matrix_Ndd: Tensor, x_Nd: Tensor) -> Tensor:
    return _times(matrix_Ndd.transpose(1, 2), x_Nd)
