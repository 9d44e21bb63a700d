"""Metrics of numbers and of draws: closed forms, plain loops, torchmetrics."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchmetrics.functional.regression import continuous_ranked_probability_score

from ocd_core.errors import UserError
from ocd_core.samples import Batch
from ocd_core.tasks.regression import covered, crps, regression_metrics


@given(st.integers(1, 12), st.integers(1, 9), st.integers(1, 3), st.integers(0, 1000))
def test_crps_is_the_double_sum(draws: int, count: int, numbers: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    y_KND = torch.randn(draws, count, numbers, generator=generator, dtype=torch.float64)
    t_ND = torch.randn(count, numbers, generator=generator, dtype=torch.float64)
    expected = []
    for n in range(count):
        of_numbers = []
        for d in range(numbers):
            y, t = y_KND[:, n, d].tolist(), float(t_ND[n, d])
            near = sum(abs(a - t) for a in y) / draws
            apart = sum(abs(a - b) for a in y for b in y) / draws**2
            of_numbers.append(near - apart / 2)
        expected.append(np.mean(of_numbers))
    np.testing.assert_allclose(crps(y_KND, t_ND), expected, atol=1e-12)


def test_crps_agrees_with_torchmetrics_and_with_the_normal_distributions_closed_form() -> None:
    generator = torch.Generator().manual_seed(0)
    y_KN, t_N = torch.randn(20, 7, generator=generator), torch.randn(7, generator=generator)
    found = float(crps(y_KN, t_N).mean())
    assert found == pytest.approx(float(continuous_ranked_probability_score(y_KN.T, t_N)), abs=1e-6)
    many = torch.randn(20_000, 1, generator=generator, dtype=torch.float64)
    at = 0.7  # of N(0, 1): t (2 Φ(t) − 1) + 2 φ(t) − 1/√π
    cdf, pdf = 0.5 * (1 + math.erf(at / 2**0.5)), math.exp(-(at**2) / 2) / (2 * math.pi) ** 0.5
    expected = at * (2 * cdf - 1) + 2 * pdf - 1 / math.pi**0.5
    assert float(crps(many, torch.tensor([at], dtype=torch.float64))) == pytest.approx(expected, abs=0.01)


def test_crps_of_one_draw_is_the_absolute_error() -> None:
    assert crps(torch.tensor([[1.0, 5.0]]), torch.tensor([3.0, 4.0])).tolist() == [2.0, 1.0]


def test_every_metric_refuses_outputs_that_would_be_repeated_for_several_targets() -> None:
    target = torch.zeros(4, 3)
    for metric in regression_metrics():
        for outputs in (torch.ones(4, 1), torch.ones(4)):
            with pytest.raises(UserError, match=r"but its target \(4, 3\); give the network as many outputs"):
                metric.measure(outputs, Batch((), target, torch.arange(4)), torch.stack([outputs] * 2))


def test_coverage_by_hand_and_of_many_draws() -> None:
    y_KN = torch.arange(101.0)[:, None].expand(101, 4)  # quantiles 5 and 95
    assert covered(y_KN, torch.tensor([4.9, 5.0, 95.0, 95.1])).tolist() == [0, 100, 100, 0]
    assert covered(y_KN[..., None].expand(101, 4, 2), torch.tensor([[0.0, 50.0]] * 4)).tolist() == [50] * 4
    generator = torch.Generator().manual_seed(1)
    draws, truth = torch.randn(400, 3000, generator=generator), torch.randn(3000, generator=generator)
    assert float(covered(draws, truth).mean()) == pytest.approx(90, abs=2)


def test_one_answer_has_no_coverage() -> None:
    assert covered(torch.zeros(1, 3), torch.zeros(3)).isnan().all()


def test_a_tasks_metrics_are_in_its_unit_and_see_draws() -> None:
    rmse, mse, score, coverage = regression_metrics(scale=10.0, unit="m")
    batch = Batch((), torch.tensor([1.0, 2.0]), torch.arange(2))
    draws = torch.tensor([[0.0, 2.0], [2.0, 2.0]])
    output = draws.mean(0) + 1
    assert rmse.finish(float(rmse.measure(output, batch, draws).mean())) == pytest.approx(10.0)
    assert mse.measure(output, batch, draws).tolist() == [100.0, 100.0]
    assert score.measure(output, batch).tolist() == [10.0, 10.0]
    assert score.measure(output, batch, draws).tolist() == pytest.approx([5.0, 0.0])
    assert coverage.measure(output, batch, draws).tolist() == [100.0, 100.0]
    assert (rmse.unit, score.unit, mse.unit) == ("m", "m", "")
