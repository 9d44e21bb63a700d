"""Kernel ridge regression against scikit-learn and against plain refits."""

import numpy as np
import pytest
import torch

from ocd_core.codes.condition import features
from ocd_core.evaluation.regression import RidgeParams, fit_ridge, subset
from ocd_core.samples import Condition

ROWS, REPLICAS = 30, 2


def params(**changes) -> RidgeParams:
    values = {"rows": 1000, "folds": 3, "widths": [0.5, 1.0, 3.0], "penalties": [0.01, 0.3], "metric": "euclidean"}
    return RidgeParams(**{**values, **changes})


@pytest.fixture
def data() -> tuple[Condition, torch.Tensor, torch.Tensor]:
    """15 samples with two replicas each: the same I(x), another Δ."""
    g = torch.Generator().manual_seed(0)
    x = torch.randn(ROWS // REPLICAS, 6, generator=g).repeat_interleave(REPLICAS, 0) * 3 + 1
    cond = Condition(x[:, :3], x[:, 3:5], x[:, 5:])
    y = torch.stack([x[:, 0].sin(), x[:, 1] * x[:, 4] / 9], 1) + 0.1 * torch.randn(ROWS, 2, generator=g)
    return cond, y, torch.arange(ROWS) // REPLICAS


def standardised(cond: Condition) -> np.ndarray:
    x = features(cond).double().numpy()
    return (x - x.mean(0)) / x.std(0)


def test_it_is_scikit_learns(data) -> None:
    from sklearn.kernel_ridge import KernelRidge

    cond, y, ids = data
    fit = fit_ridge(cond, y, ids, params(), seed=0)
    new = Condition(*(part[:5] + 0.3 for part in cond.parts()))
    x, mean, std = standardised(cond), features(cond).double().mean(0), features(cond).double().std(0, correction=0)
    reference = KernelRidge(alpha=fit.metrics["penalty"], kernel="rbf", gamma=fit.metrics["gamma"]).fit(x, y.double())
    expected = reference.predict(((features(new).double() - mean) / std).numpy())
    np.testing.assert_allclose(fit.ridge(new), expected, rtol=1e-4, atol=1e-5)
    assert np.abs(expected).max() > 0.1


def test_gamma_is_in_units_of_the_median_distance_between_samples(data) -> None:
    cond, y, ids = data
    fit = fit_ridge(cond, y, ids, params(), seed=0)
    x = standardised(cond)
    apart = [((x[i] - x[j]) ** 2).sum() for i in range(ROWS) for j in range(ROWS) if ids[i] != ids[j]]
    # torch takes the lower of the two middle values
    median = np.sort(apart)[(len(apart) - 1) // 2]
    assert fit.metrics["gamma"] == pytest.approx(1 / (2 * fit.metrics["width"] ** 2 * median), rel=1e-4)


def test_cross_validation_equals_refits_that_leave_whole_samples_out(data, monkeypatch) -> None:
    """Every candidate's error, by scikit-learn on the other folds; the best one is chosen."""
    from sklearn.kernel_ridge import KernelRidge

    from ocd_core.rng import permutation

    cond, y, ids = data
    x, fold = standardised(cond), (permutation(ROWS // REPLICAS, 0, "ridge folds") % 3)[ids].numpy()
    errors = {}
    for width in params().widths:
        for penalty in params().penalties:
            one = fit_ridge(cond, y, ids, params(widths=[width], penalties=[penalty]), seed=0).metrics
            total = 0.0
            for f in range(3):
                out = fold == f
                assert not set(ids[out].tolist()) & set(ids[~out].tolist())
                model = KernelRidge(alpha=penalty, kernel="rbf", gamma=one["gamma"]).fit(x[~out], y[~out].double())
                total += ((model.predict(x[out]) - y[out].double().numpy()) ** 2).sum()
            errors[width, penalty] = total / y.numel()
            assert one["cv_mse"] == pytest.approx(errors[width, penalty], rel=1e-4)
    chosen = fit_ridge(cond, y, ids, params(), seed=0).metrics
    assert (chosen["width"], chosen["penalty"]) == min(errors, key=errors.get)
    variance = y.double().var(0, correction=0).mean()
    assert chosen["cv_r2"] == pytest.approx(1 - min(errors.values()) / float(variance), abs=1e-5)


def test_a_subset_keeps_samples_whole(data) -> None:
    cond, y, ids = data
    rows = subset(ids, 11, seed=0)
    assert len(rows) == 10  # five samples of two replicas
    assert (ids[rows].bincount(minlength=15) % REPLICAS == 0).all()
    assert rows.tolist() != subset(ids, 11, seed=1).tolist()
    fit = fit_ridge(cond, y, ids, params(rows=11), seed=0)
    assert fit.metrics["rows"] == 10
    assert fit.ridge.x_ND.shape == (10, 6)


def test_errors_count_by_the_metric_of_each_row(data) -> None:
    """Rows whose metric is small have little say: the answer is near that of a fit to the others."""
    cond, y, ids = data
    weights = torch.where(ids < 10, 1.0, 1e-6)
    one = params(widths=[1.0], penalties=[0.3])
    asked = []

    def metric_of(rows: torch.Tensor) -> torch.Tensor:
        asked.append(rows)
        return weights[rows][:, None, None] * torch.eye(2)

    found = fit_ridge(cond, y, ids, one, 0, metric_of)
    assert [rows.tolist() for rows in asked] == [list(range(ROWS))]
    x, kept = standardised(cond), (ids < 10).numpy()
    kernel = np.exp(-found.metrics["gamma"] * ((x[:, None] - x[None]) ** 2).sum(2))
    alpha = np.linalg.solve(kernel[kept][:, kept] + 0.3 * np.eye(kept.sum()), y.double().numpy()[kept])
    np.testing.assert_allclose(found.ridge(cond), kernel[:, kept] @ alpha, rtol=1e-3, atol=1e-4)
    plain = fit_ridge(cond, y, ids, one, 0)
    alike = fit_ridge(cond, y, ids, one, 0, lambda rows: torch.eye(2).expand(len(rows), 2, 2))
    torch.testing.assert_close(alike.ridge.alpha_Nd, plain.ridge.alpha_Nd, rtol=1e-5, atol=1e-6)
    for name, value in plain.metrics.items():
        assert alike.metrics[name] == pytest.approx(value, rel=1e-3), name


def test_features_that_are_all_dead_give_finite_answers(data) -> None:
    _, y, ids = data
    dead = Condition(*(torch.zeros(ROWS, 2) for _ in range(3)))
    assert torch.isfinite(fit_ridge(dead, y, ids, params(), seed=0).ridge(dead)).all()
