"""Intervals and paired tests: over samples, over groups of samples, and for metrics of a whole split.

Samples of one group (the documents of a query, the recordings of a speaker) are not independent, so if there are
groups, whole groups are resampled and compared. The metric itself stays the mean over samples.

Dims: N samples, G groups, R resamples.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ocd_core.rng import numpy_generator, permutation
from ocd_core.samples import rows_by_group

Values = NDArray[np.float64]
Groups = NDArray[np.int64]
_BLOCK = 10_000_000  # numbers drawn at a time


def bootstrap_interval(
    values: Values,
    resamples: int,
    seed: int,
    finish: Callable[[float], float] = float,
    level: float = 0.95,
    groups: Groups | None = None,
) -> tuple[float, float]:
    """Percentile bootstrap interval of `finish(mean)` over samples (scipy.stats.bootstrap), or over groups of them.

    Args:
        values: one number per sample, (N,).
        finish: monotonic (for example a square root), applied to the ends of the interval of the mean.
        groups: the group of each sample, (N,); None: each sample is its own group.
    """
    from scipy.stats import bootstrap

    if len(values) < 2 or np.ptp(values) == 0:  # nothing to resample
        return finish(float(values.mean())), finish(float(values.mean()))
    if groups is None:
        interval = bootstrap(
            (values,),
            np.mean,
            n_resamples=resamples,
            batch=max(1, _BLOCK // len(values)),
            method="percentile",
            confidence_level=level,
            rng=numpy_generator(seed, "bootstrap"),
        ).confidence_interval
        low, high = float(interval.low), float(interval.high)
    else:
        low, high = percentiles(_means_of_resampled_groups(values, groups, resamples, seed), level)
    ends = finish(low), finish(high)
    return min(ends), max(ends)


def difference_interval(
    values: Values,
    reference: Values,
    resamples: int,
    seed: int,
    finish: Callable[[float], float] = float,
    groups: Groups | None = None,
) -> tuple[float, float]:
    """95 % percentile bootstrap interval of `finish(mean(values)) - finish(mean(reference))`.

    Both means are of the same resampled samples, or groups of them. Arguments as in `bootstrap_interval`.
    """
    if len(values) < 2 or (np.ptp(values) == 0 and np.ptp(reference) == 0):
        found = finish(float(values.mean())) - finish(float(reference.mean()))
        return found, found
    both = values, reference
    if groups is None:
        means = _means_of_resamples(np.stack(both), resamples, seed)
    else:  # the same seed draws the same groups
        means = np.stack([_means_of_resampled_groups(v, groups, resamples, seed) for v in both])
    return percentiles(np.array([finish(float(a)) - finish(float(b)) for a, b in means.T]))


def paired_p(values: Values, reference: Values, groups: Groups | None = None) -> float:
    """The two-sided p of `paired_z` under Student's t with one degree of freedom less than samples, or than groups."""
    from scipy.stats import t

    units = independent(len(values), groups)
    if units < 2:
        return 1.0
    return float(2 * t.sf(abs(paired_z(values, reference, groups)), units - 1))


def mcnemar_p(values: Values, reference: Values) -> float:
    """The two-sided p of McNemar's exact test of whether each row is better on half of the samples where they differ.

    values, reference: of a metric with two values, (N,).
    """
    from scipy.stats import binomtest

    higher, lower = int((values > reference).sum()), int((values < reference).sum())
    return float(binomtest(higher, higher + lower).pvalue) if higher + lower else 1.0


def holm(p: Sequence[float]) -> list[float]:
    """Holm's step-down correction of m p-values (Holm, 1979), in the same order.

    The i-th smallest, multiplied by m - i + 1, but at least the one before it and at most 1.
    """
    adjusted, highest = [0.0] * len(p), 0.0
    for place, index in enumerate(sorted(range(len(p)), key=p.__getitem__)):
        highest = max(highest, min(1.0, (len(p) - place) * p[index]))
        adjusted[index] = highest
    return adjusted


def p_text(p: float, equals: bool = False) -> str:
    """A p-value as all tables and pages write it: `.012`, `<.001`; with `equals` for a sentence: `= .012`, `< .001`."""
    if p < 0.001:
        return "< .001" if equals else "<.001"
    return f"{'= ' * equals}{f'{p:.3f}'.removeprefix('0')}"


def percentiles(values_R: Values, level: float = 0.95) -> tuple[float, float]:
    """The ends of the middle `level` of the values."""
    outside = (1 - level) / 2
    low, high = np.quantile(values_R, [outside, 1 - outside])
    return float(low), float(high)


def paired_z(values: Values, reference: Values, groups: Groups | None = None) -> float:
    """The mean difference of paired values divided by its standard error; 0 if every difference is zero.

    With groups, the standard error is that of independent groups: with D_g the sum of a group's differences, n_g its
    number of samples and m the mean of all, SE² = G/(G-1) Σ (D_g - m n_g)² / N². Groups of one sample change nothing.
    """
    difference = values - reference
    error = _standard_error(difference, groups)
    return float(difference.mean() / error) if error else 0.0


def paired_interval(
    values: Values, reference: Values, groups: Groups | None = None, level: float = 0.95
) -> tuple[float, float]:
    """The interval of the mean difference by Student's t, to `paired_z` as the test of `paired_p` is.

    It is a point if every difference is the same, or if there is one sample or one group.
    """
    from scipy.stats import t

    difference = values - reference
    mean, error = float(difference.mean()), _standard_error(difference, groups)
    half = float(t.ppf((1 + level) / 2, independent(len(values), groups) - 1)) * error if error else 0.0
    return mean - half, mean + half


def independent(count: int, groups: Groups | None) -> int:
    """How many independent units `count` samples are: groups, or samples if there are none."""
    return count if groups is None else len(np.unique(groups))


def halves(count: int, groups: Groups | None, seed: int, purpose: str) -> Groups:
    """0 or 1 for each of `count` samples at random, int64 (count,); a group's samples are all in the same half."""
    half = (permutation(independent(count, groups), seed, purpose) % 2).numpy()
    return half if groups is None else half[np.unique(groups, return_inverse=True)[1]]


def _standard_error(difference: Values, groups: Groups | None) -> float:
    """See `paired_z`; 0 if all differences are equal, or of one sample or group."""
    if groups is None:
        return float(difference.std(ddof=1) / np.sqrt(len(difference))) if len(difference) > 1 else 0.0
    sums_G, counts_G = _group_sums(difference, groups)
    residual_G = sums_G - float(difference.mean()) * counts_G
    if len(sums_G) < 2 or np.ptp(difference) == 0:
        return 0.0
    return float(np.sqrt(len(sums_G) / (len(sums_G) - 1) * (residual_G**2).sum()) / len(difference))


def recomputed(
    measure: Callable[[Tensor], float], count: int, groups: Tensor | None, resamples: int, seed: int
) -> Values:
    """A metric of a whole split, computed again on each bootstrap resample of its rows or its groups, (R,).

    Args:
        measure: maps rows of the split (int64, with repetitions) to the metric. It may raise ValueError or return NaN
            if the metric is not defined (one class alone has no AUC).
        count: N. groups: the group of each row, (N,), or None.

    Returns NaN if the metric is not defined. The same seed draws the same rows, for any `measure`.
    """
    generator = numpy_generator(seed, "bootstrap")
    members = None if groups is None else rows_by_group(groups)
    found_R = np.full(resamples, np.nan)
    for i in range(resamples):
        if members is None:
            rows = torch.from_numpy(generator.integers(count, size=count))
        else:
            rows = torch.cat([members[g] for g in generator.integers(len(members), size=len(members))])
        try:
            found_R[i] = measure(rows)
        except ValueError:  # it was defined on the whole split
            continue
    return found_R


def recomputed_z(difference: float, values_R: Values, reference_R: Values) -> float:
    """A difference of two metrics divided by the standard deviation of its paired resamples; 0 if that is 0."""
    difference_R = values_R - reference_R
    difference_R = difference_R[np.isfinite(difference_R)]
    spread = float(difference_R.std(ddof=1)) if len(difference_R) > 1 else 0.0
    return difference / spread if spread else 0.0


def _means_of_resamples(values_VN: Values, resamples: int, seed: int) -> Values:
    """The means of V paired rows of values over samples drawn with replacement, (V, R)."""
    generator = numpy_generator(seed, "bootstrap")
    count = values_VN.shape[1]
    parts = []
    size = max(1, _BLOCK // count)
    for start in range(0, resamples, size):
        drawn_RN = generator.integers(count, size=(min(size, resamples - start), count))
        parts.append(np.stack([values_N[drawn_RN].mean(1) for values_N in values_VN]))
    return np.concatenate(parts, 1)


def _group_sums(values: Values, groups: Groups) -> tuple[Values, Groups]:
    """The sum of each group's values, and its size, each (G,)."""
    _, group_N = np.unique(groups, return_inverse=True)
    sums_G, counts_G = np.bincount(group_N, weights=values), np.bincount(group_N)
    return sums_G.astype(np.float64), counts_G.astype(np.int64)


def _means_of_resampled_groups(values: Values, groups: Groups, resamples: int, seed: int) -> Values:
    """The mean over the samples of G groups drawn with replacement, (R,)."""
    sums_G, counts_G = _group_sums(values, groups)
    generator = numpy_generator(seed, "bootstrap")
    parts = []
    size = max(1, _BLOCK // len(sums_G))
    for start in range(0, resamples, size):
        drawn_RG = generator.integers(len(sums_G), size=(min(size, resamples - start), len(sums_G)))
        parts.append(sums_G[drawn_RG].sum(1) / counts_G[drawn_RG].sum(1))
    return np.concatenate(parts)
