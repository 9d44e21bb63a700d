"""Intervals and z against scipy, plain loops and simulated truth."""

import numpy as np
import pytest
import torch
from scipy import stats

from ocd_core.evaluation.statistics import (
    bootstrap_interval,
    difference_interval,
    halves,
    holm,
    independent,
    mcnemar_p,
    p_text,
    paired_interval,
    paired_p,
    paired_z,
    percentiles,
    recomputed,
    recomputed_z,
)
from ocd_core.rng import permutation


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


def test_the_paired_interval_is_that_of_student() -> None:
    rng = np.random.default_rng(3)
    for count in (2, 4, 30):
        a, b = rng.normal(0, 1, count), rng.normal(0.3, 1, count)
        assert paired_interval(a, b) == pytest.approx(stats.ttest_rel(a, b).confidence_interval())
        assert paired_interval(a, b, level=0.5) == pytest.approx(stats.ttest_rel(a, b).confidence_interval(0.5))
    assert paired_interval(a + 1, a) == pytest.approx((1.0, 1.0))
    assert paired_interval(a[:1], b[:1]) == (a[0] - b[0], a[0] - b[0])


def test_the_paired_interval_by_group_is_that_of_equal_groups_means() -> None:
    rng = np.random.default_rng(8)
    a, group = grouped(rng, 5, 6, spread=1.0)
    b = a + rng.normal(0.1, 1, len(a)) + np.repeat(rng.normal(0, 1, 5), 6)
    means = [v.reshape(5, 6).mean(1) for v in (a, b)]
    assert paired_interval(a, b, group) == pytest.approx(stats.ttest_rel(*means).confidence_interval())


def test_halves_keep_groups_together() -> None:
    group = np.array([7, 2, 7, 9, 2, 9, 4, 7])
    half = halves(8, group, 0, "test")
    assert all(len(set(half[group == g])) == 1 for g in group)
    assert sorted(half[[0, 1, 3, 6]]) == [0, 0, 1, 1]
    assert halves(9, None, 0, "test").tolist() == (permutation(9, 0, "test") % 2).tolist()
    assert halves(9, np.arange(9), 0, "test").tolist() == halves(9, None, 0, "test").tolist()
    assert (independent(8, group), independent(8, None)) == (4, 8)


def grouped(rng: np.random.Generator, groups: int, size: int, spread: float) -> tuple[np.ndarray, np.ndarray]:
    """Values whose groups have means of their own, and the group of each."""
    means = rng.normal(0, spread, groups)
    group = np.repeat(np.arange(groups) * 3 + 1, size)  # numbers need not be 0 .. G-1
    return np.repeat(means, size) + rng.normal(0, 1, groups * size), group


def test_an_interval_by_group_resamples_whole_groups() -> None:
    """Against a plain loop over groups of unequal sizes."""
    rng = np.random.default_rng(4)
    group = rng.integers(0, 12, 80)
    values = rng.normal(0, 1, 80) + group
    low, high = bootstrap_interval(values, 4000, seed=0, groups=group)
    members = [values[group == g] for g in np.unique(group)]
    means = [
        np.concatenate([members[g] for g in rng.integers(0, len(members), len(members))]).mean() for _ in range(4000)
    ]
    expected = np.percentile(means, [2.5, 97.5])
    assert (low, high) == pytest.approx(expected, abs=0.06 * (expected[1] - expected[0]))
    assert bootstrap_interval(values, 4000, 0, groups=group) == (low, high)
    falling = bootstrap_interval(values, 4000, 0, lambda v: -v, groups=group)
    assert falling == pytest.approx((-high, -low))


def test_groups_of_one_are_samples() -> None:
    values = np.random.default_rng(5).exponential(1, 300)
    by_group = bootstrap_interval(values, 5000, 0, groups=np.arange(300))
    assert by_group == pytest.approx(bootstrap_interval(values, 5000, 0), rel=0.02)
    reference = np.random.default_rng(6).exponential(1, 300)
    assert paired_z(values, reference, np.arange(300)) == pytest.approx(paired_z(values, reference))


def test_by_row_an_interval_of_grouped_values_is_too_narrow() -> None:
    """Thirty queries with ten documents each: by group 95 % of intervals hold the truth, by row about half."""
    rng = np.random.default_rng(7)
    covered = {"row": 0, "group": 0}
    for seed in range(200):
        values, group = grouped(rng, 30, 10, spread=2.0)
        for name, groups in (("row", None), ("group", group)):
            low, high = bootstrap_interval(values, 300, seed, groups=groups)
            covered[name] += low <= 0 <= high
    assert covered["group"] / 200 > 0.88
    assert covered["row"] / 200 < 0.65


def test_z_by_group_is_that_of_equal_groups_means() -> None:
    """With groups of one size, the paired t statistic of the groups' means."""
    rng = np.random.default_rng(8)
    a, group = grouped(rng, 20, 6, spread=1.0)
    b = a + rng.normal(0.1, 1, len(a)) + np.repeat(rng.normal(0, 1, 20), 6)
    means = [v.reshape(20, 6).mean(1) for v in (a, b)]
    assert paired_z(a, b, group) == pytest.approx(stats.ttest_rel(*means).statistic)
    order = rng.permutation(len(a))
    assert paired_z(a[order], b[order], group[order]) == pytest.approx(paired_z(a, b, group))
    assert abs(paired_z(a, b)) > abs(paired_z(a, b, group))
    assert paired_z(a, a, group) == 0.0
    assert paired_z(a, b, np.zeros(len(a), dtype=np.int64)) == 0.0  # one group tells nothing of others


def test_z_by_group_is_standard_normal_where_there_is_no_difference() -> None:
    """Groups of unequal sizes, with errors in common: the share beyond 1.96 is one in twenty, by row far more."""
    rng = np.random.default_rng(9)
    by_group, by_row = [], []
    for _ in range(400):
        group = np.repeat(np.arange(40), rng.integers(1, 12, 40))
        a = rng.normal(0, 1, 40)[group] + rng.normal(0, 1, len(group))
        by_group.append(paired_z(a, np.zeros(len(a)), group))
        by_row.append(paired_z(a, np.zeros(len(a))))
    assert 0.02 < np.mean(np.abs(by_group) > 1.96) < 0.1
    assert np.mean(np.abs(by_row) > 1.96) > 0.2


def auc(score: torch.Tensor, label: torch.Tensor) -> float:
    """The share of pairs that are in order."""
    above = score[label][:, None] > score[~label]
    return float(above.double().mean()) if above.numel() else float("nan")


def test_a_figure_of_a_split_is_computed_again_on_each_resample() -> None:
    label = torch.arange(60) % 3 == 0
    score = torch.randn(60, generator=torch.Generator().manual_seed(0)) + label
    found = recomputed(lambda rows: auc(score[rows], label[rows]), 60, None, 1000, 0)
    rng = np.random.default_rng(0)
    by_hand = []
    for _ in range(1000):  # ties within a resample are never between the classes
        rows = torch.from_numpy(rng.integers(0, 60, 60))
        right, wrong = score[rows][label[rows]], score[rows][~label[rows]]
        by_hand.append(stats.mannwhitneyu(right, wrong).statistic / (len(right) * len(wrong)))
    assert percentiles(found) == pytest.approx(percentiles(np.array(by_hand)), abs=0.03)
    assert np.array_equal(found, recomputed(lambda rows: auc(score[rows], label[rows]), 60, None, 1000, 0))


def test_whole_groups_are_drawn_for_a_figure_of_a_split() -> None:
    groups = torch.tensor([5, 2, 5, 9, 2, 5])
    seen: list[list[int]] = []
    recomputed(lambda rows: seen.append(sorted(rows.tolist())) or 0.0, 6, groups, 50, 0)
    members = ([1, 4], [0, 2, 5], [3])
    possible = {tuple(sorted(a + b + c)) for a in members for b in members for c in members}
    assert {tuple(rows) for rows in seen} <= possible
    assert len({tuple(rows) for rows in seen}) > 5


def test_resamples_on_which_a_figure_is_not_defined_are_left_out() -> None:
    label = torch.tensor([True, False, False, False])

    def measure(rows: torch.Tensor) -> float:
        if label[rows].all() or not label[rows].any():
            raise ValueError("only one class")
        return 1.0

    found = recomputed(measure, 4, None, 200, 0)
    assert np.isnan(found).mean() == pytest.approx(0.75**4 + 0.25**4, abs=0.1)
    assert recomputed_z(0.5, found, found) == 0.0


def test_z_of_a_recomputed_difference_is_over_its_spread() -> None:
    rng = np.random.default_rng(10)
    a, b = rng.normal(1, 2, 500), rng.normal(0, 1, 500)
    assert recomputed_z(1.0, a, b) == pytest.approx(1.0 / np.std(a - b, ddof=1))
    a[3], b[5] = np.nan, np.nan
    kept = np.delete(a - b, [3, 5])
    assert recomputed_z(1.0, a, b) == pytest.approx(1.0 / np.std(kept, ddof=1))


def test_an_interval_of_a_difference_is_paired() -> None:
    """Against scipy's paired bootstrap, also where the reported number is a root."""
    rng = np.random.default_rng(10)
    a = rng.exponential(1, 300)
    b = a + rng.normal(0.05, 0.2, 300) ** 2
    for finish in (float, np.sqrt):
        found = difference_interval(a, b, 4000, 0, finish)
        expected = stats.bootstrap(
            (a, b), lambda x, y, axis, f=finish: np.vectorize(f)(x.mean(axis)) - np.vectorize(f)(y.mean(axis)),
            n_resamples=4000, paired=True, method="percentile", rng=1,
        ).confidence_interval  # fmt: skip
        assert found == pytest.approx((expected.low, expected.high), rel=0.1)
    apart = bootstrap_interval(a, 4000, 0)
    low, high = difference_interval(a, b, 4000, 0)
    assert high - low < 0.2 * (apart[1] - apart[0])


def test_an_interval_of_a_difference_by_group_is_wider() -> None:
    rng = np.random.default_rng(11)
    a, group = grouped(rng, 30, 10, spread=1.0)
    b = a + np.repeat(rng.normal(0, 1, 30), 10)
    by_row, by_group = (np.ptp(difference_interval(a, b, 2000, 0, groups=g)) for g in (None, group))
    assert by_group > 2 * by_row
    means = (a - b).reshape(30, 10).mean(1)
    assert by_group == pytest.approx(np.ptp(bootstrap_interval(means, 4000, 1)), rel=0.1)


def test_an_interval_of_a_constant_difference_is_a_point() -> None:
    assert difference_interval(np.full(5, 2.0), np.full(5, 3.5), 100, 0) == (-1.5, -1.5)
    assert difference_interval(np.array([1.0]), np.array([3.0]), 100, 0) == (-2.0, -2.0)


def test_p_is_that_of_the_paired_t_test() -> None:
    rng = np.random.default_rng(12)
    a, b = rng.normal(0, 1, 12), rng.normal(0.5, 1, 12)
    assert paired_p(a, b) == pytest.approx(stats.ttest_rel(a, b).pvalue)
    a, group = grouped(rng, 9, 4, spread=1.0)
    b = a + rng.normal(0.2, 1, len(a))
    means = [v.reshape(9, 4).mean(1) for v in (a, b)]
    assert paired_p(a, b, group) == pytest.approx(stats.ttest_rel(*means).pvalue)
    assert paired_p(a, a) == 1.0
    assert paired_p(a[:1], b[:1]) == 1.0


def test_mcnemar_by_hand() -> None:
    """Of six samples on which the rows differ, one is better on five: 2 (C(6,5) + C(6,6)) / 2^6."""
    a = np.array([100, 100, 100, 100, 100, 0, 100, 0.0])
    b = np.array([0, 0, 0, 0, 0, 100, 100, 0.0])
    assert mcnemar_p(a, b) == mcnemar_p(b, a) == pytest.approx(2 * 7 / 64)
    assert mcnemar_p(a, a) == 1.0


def test_p_text() -> None:
    assert [p_text(p) for p in (0.0, 0.00099, 0.001, 0.0123, 0.9994, 1.0)] == [
        *("<.001", "<.001", ".001", ".012", ".999", "1.000")
    ]
    assert [p_text(p, equals=True) for p in (0.0, 0.0123, 1.0)] == ["< .001", "= .012", "= 1.000"]


def test_holm_by_hand_and_never_out_of_order() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.5, 0.9]) == [1.0, 1.0]
    assert holm([]) == []
    p = np.random.default_rng(13).uniform(0, 0.2, 20)
    adjusted = np.array(holm(list(p)))
    assert (np.diff(adjusted[np.argsort(p)]) >= 0).all()
    assert (adjusted >= p).all()
    assert adjusted.min() == pytest.approx(20 * p.min())  # the smallest as with Bonferroni


def test_holm_keeps_the_familywise_error() -> None:
    """Ten true nulls: some corrected p is below .05 in about one family of twenty; uncorrected, in four of ten."""
    rng = np.random.default_rng(14)
    families = rng.uniform(0, 1, (2000, 10))
    corrected = np.mean([min(holm(list(family))) < 0.05 for family in families])
    assert corrected == pytest.approx(0.05, abs=0.015)
    assert np.mean(families.min(1) < 0.05) == pytest.approx(0.4, abs=0.04)
