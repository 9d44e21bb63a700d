import numpy as np
import pytest
from scipy import stats

from ocd_core.evaluation.statistics import bootstrap_interval, paired_z


def test_interval_agrees_with_the_normal_one_for_many_samples() -> None:
    values = np.random.default_rng(0).normal(3, 2, 4000)
    low, high = bootstrap_interval(values, 2000, seed=0)
    half = 1.96 * values.std(ddof=1) / np.sqrt(len(values))
    assert low == pytest.approx(values.mean() - half, abs=0.1 * half)
    assert high == pytest.approx(values.mean() + half, abs=0.1 * half)


def test_interval_covers_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    covered = 0
    for seed in range(200):
        low, high = bootstrap_interval(rng.normal(0, 1, 50), 300, seed)
        covered += low <= 0 <= high
    assert 0.88 < covered / 200 < 0.99


def test_interval_is_reproducible_and_passes_through_finish() -> None:
    values = np.random.default_rng(2).exponential(1, 100)
    assert bootstrap_interval(values, 200, 5) == bootstrap_interval(values, 200, 5)
    assert bootstrap_interval(values, 200, 5) != bootstrap_interval(values, 200, 6)
    low, high = bootstrap_interval(values, 200, 5)
    assert bootstrap_interval(values, 200, 5, np.sqrt) == pytest.approx((np.sqrt(low), np.sqrt(high)))
    falling = bootstrap_interval(values, 200, 5, lambda v: -v)
    assert falling == pytest.approx((-high, -low))


def test_interval_of_equal_values_is_a_point() -> None:
    assert bootstrap_interval(np.full(9, 0.25), 100, 0) == (0.25, 0.25)


def test_paired_z_is_the_paired_t_statistic() -> None:
    rng = np.random.default_rng(3)
    a, b = rng.normal(0, 1, 30), rng.normal(0.3, 1, 30)
    assert paired_z(a, b) == pytest.approx(stats.ttest_rel(a, b).statistic)
    assert paired_z(a, a) == 0.0
