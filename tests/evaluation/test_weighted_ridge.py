"""Conjugate gradients against the linear system of all coordinates, and scikit-learn where the metric is plain."""

import pytest
import torch

from ocd_core.evaluation.weighted_ridge import WeightedRidge

N, D = 12, 3


def data() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(0)
    x, y = torch.randn(N, 4, generator=g).double(), torch.randn(N, D, generator=g).double()
    kernel = (-0.2 * torch.cdist(x, x).square()).exp()
    half = torch.randn(N, D, D, generator=g).double()
    return kernel, y, half @ half.transpose(1, 2) + 0.01 * torch.eye(D).double()


def by_one_system(kernel: torch.Tensor, y: torch.Tensor, metric: torch.Tensor, penalty: float) -> torch.Tensor:
    """The gradient of the objective set to zero, with f = K α: (K ⊗ I + λ M⁻¹) α = y."""
    large = torch.kron(kernel, torch.eye(D).double()) + penalty * torch.block_diag(*torch.linalg.inv(metric))
    return torch.linalg.solve(large, y.flatten()).view(-1, D)


@pytest.mark.parametrize("penalty", [0.01, 1.0])
def test_against_the_large_linear_system(penalty: float) -> None:
    kernel, y, metric = data()
    found = WeightedRidge(y, metric).solve(kernel, penalty)
    torch.testing.assert_close(found, by_one_system(kernel, y, metric, penalty), rtol=1e-5, atol=1e-6)


def test_it_is_the_minimum() -> None:
    kernel, y, metric = data()

    def objective(alpha: torch.Tensor) -> torch.Tensor:
        gap = y - kernel @ alpha
        return torch.einsum("ni,nij,nj->", gap, metric, gap) + 0.3 * (alpha * (kernel @ alpha)).sum()

    alpha = WeightedRidge(y, metric).solve(kernel, 0.3).requires_grad_(True)
    (slope,) = torch.autograd.grad(objective(alpha), alpha)
    assert slope.abs().max() < 1e-5


def test_equal_weights_are_a_ridge_regression_of_each_coordinate() -> None:
    from sklearn.kernel_ridge import KernelRidge

    kernel, y, _ = data()
    found = WeightedRidge(y, torch.eye(D).expand(N, D, D)).solve(kernel, 0.2)
    reference = KernelRidge(alpha=0.2, kernel="precomputed").fit(kernel, y)
    torch.testing.assert_close(found, torch.from_numpy(reference.dual_coef_), rtol=1e-6, atol=1e-7)


def test_errors_of_left_out_folds_are_those_of_refits() -> None:
    kernel, y, metric = data()
    fold, total = torch.arange(N) % 4, 0.0
    for f in range(4):
        out, rest = fold == f, fold != f
        alpha = by_one_system(kernel[rest][:, rest], y[rest], metric[rest], 0.1)
        gap = y[out] - kernel[out][:, rest] @ alpha
        total += float(torch.einsum("ni,nij,nj->", gap, metric[out], gap))
    ridge = WeightedRidge(y, metric)
    assert ridge.error(kernel, 0.1, fold) == pytest.approx(total / y.numel(), rel=1e-3)
    size = float(torch.einsum("ni,nij,nj->", y, metric, y)) / y.numel()
    assert ridge.size(y) == pytest.approx(size)
