"""Intervals and paired tests over samples."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from ocd_core.rng import numpy_generator

Values = NDArray[np.float64]


def bootstrap_interval(
    values: Values, resamples: int, seed: int, finish: Callable[[float], float] = float, level: float = 0.95
) -> tuple[float, float]:
    """Percentile bootstrap interval of `finish(mean)` over samples (scipy.stats.bootstrap).

    Args:
        values: one number a sample, (N,).
        finish: monotonic (a square root, say), applied to the ends of the interval of the mean.
    """
    from scipy.stats import bootstrap

    if len(values) < 2 or np.ptp(values) == 0:  # nothing to resample
        return finish(float(values.mean())), finish(float(values.mean()))
    interval = bootstrap(
        (values,), np.mean, n_resamples=resamples, batch=max(1, 10_000_000 // len(values)), method="percentile",
        confidence_level=level, rng=numpy_generator(seed, "bootstrap"),
    ).confidence_interval  # fmt: skip
    ends = finish(float(interval.low)), finish(float(interval.high))
    return min(ends), max(ends)


def paired_z(values: Values, reference: Values) -> float:
    """Mean difference of paired values over its standard error; 0 where every difference is the same zero."""
    difference = values - reference
    spread = float(difference.std(ddof=1)) if len(difference) > 1 else 0.0
    if spread == 0.0:
        return 0.0
    return float(difference.mean() / (spread / np.sqrt(len(difference))))
