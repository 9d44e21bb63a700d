import math

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from ocd_core.scale.losses import eq8_loss, log_mse_loss, scale_metrics


def test_losses_by_hand():
    predicted, rho = torch.tensor([2.0, 0.5, 1.0]), torch.tensor([1.0, 1.0, 1.0])
    expected = [10 * math.log10(1 + 1e-4), 10 * math.log10(0.25 + 1e-4), 10 * math.log10(1e-4)]
    assert eq8_loss(predicted, rho).tolist() == pytest.approx(expected, rel=1e-5, abs=1e-5)
    # ρ² below the line: what counts is the relative error
    torch.testing.assert_close(eq8_loss(predicted * 1e-5, rho * 1e-5), eq8_loss(predicted, rho), rtol=1e-3, atol=1e-3)
    assert log_mse_loss(predicted, rho).tolist() == pytest.approx([math.log(2) ** 2, math.log(2) ** 2, 0.0])


def test_metrics_against_numpy_and_scipy():
    rng = np.random.default_rng(0)
    rho = np.exp(rng.normal(size=40))
    rho[[3, 7]] = 0.0
    rho[11] = rho[12]  # ties
    predicted = np.exp(np.log(np.maximum(rho, 1e-3)) + rng.normal(size=40))
    found = scale_metrics(torch.from_numpy(predicted), torch.from_numpy(rho))
    kept = rho > 0
    assert found["median_abs_log_ratio"] == pytest.approx(np.median(np.abs(np.log(predicted[kept] / rho[kept]))))
    decibels = [10 * math.log10((p - r) ** 2 / r**2 + 1e-4) for p, r in zip(predicted[kept], rho[kept], strict=True)]
    assert found["eq8_db"] == pytest.approx(np.mean(decibels))
    assert found["rank_correlation"] == pytest.approx(spearmanr(predicted[kept], rho[kept]).statistic)


def test_metrics_of_constant_predictions_and_of_nothing():
    ones = torch.ones(4)
    assert math.isnan(scale_metrics(ones, torch.tensor([1.0, 2, 3, 4]))["rank_correlation"])
    assert all(math.isnan(v) for v in scale_metrics(ones, torch.zeros(4)).values())
    zero = scale_metrics(torch.zeros(4), ones)
    assert zero["eq8_db"] == pytest.approx(10 * math.log10(1 + 1e-4))
    assert math.isnan(zero["median_abs_log_ratio"])
