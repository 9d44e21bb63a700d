"""The differential entropy of one-dimensional samples by a Gaussian kernel density estimate (Silverman, 1986).

scipy's `gaussian_kde` takes one sample at a time and evaluates every kernel at every point. This module computes all
rows at once: the draws are spread over the nodes of a grid by cubic interpolation of the kernel and convolved with the
Gaussian by FFT, and -f log f is summed over the nodes. The grid has `_NODES_PER_BANDWIDTH` nodes per bandwidth; the
error of the interpolation is of fourth order in their distance, and the sum of a smooth function that vanishes at both
ends converges faster than any power of it.

Dims: N rows, D draws, M nodes.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

Doubles = NDArray[np.float64]

_NODES_PER_BANDWIDTH = 8
_TAIL = 7.0  # bandwidths of grid beyond the outermost draws; exp(-7²/2) = 2e-11
_WORKING_SET = 1 << 16  # numbers in a temporary array: about the size of a cache


def silverman_factor(draws: int) -> float:
    """Silverman's bandwidth divided by the sample standard deviation, in one dimension."""
    return float((0.75 * draws) ** -0.2)


def entropy_gkde(losses_ND: ArrayLike, bandwidth: float | None = None) -> Doubles:
    """Differential entropy -∫ f log f of each row, in nats, float64 (N,), where f is the row's GKDE.

    The value agrees with that of `scipy.stats.gaussian_kde(row, "silverman")`, integrated numerically, within 1e-4.

    Args:
        losses_ND: at least two draws per row, finite; may be a CPU tensor.
        bandwidth: the kernel's standard deviation, above 0, in the units of the losses; None: Silverman's, row by row.
            A fixed one takes memory in proportion to the range of a row in bandwidths.

    Returns:
        The entropies. With Silverman's bandwidth, NaN for a row that is constant to within a few roundings of its
        largest value, since such a row has no density; with a fixed one, that row has the entropy of the kernel.

    Raises:
        ValueError: the array is not two-dimensional, has fewer than two draws, or has a value that is not finite; or
            the bandwidth is not above 0.
    """
    if bandwidth is not None and not bandwidth > 0:
        raise ValueError(f"the bandwidth must be above 0, not {bandwidth}")
    values_ND = np.asarray(losses_ND, dtype=np.float64)
    if values_ND.ndim != 2 or values_ND.shape[1] < 2:
        raise ValueError(f"expected (rows, draws >= 2), found shape {values_ND.shape}")
    if not np.isfinite(values_ND).all():
        raise ValueError("the entropy of values that are not finite is undefined")
    entropy_N = np.full(len(values_ND), np.nan)
    step = max(1, _WORKING_SET // values_ND.shape[1])
    for start in range(0, len(values_ND), step):
        part_ND = values_ND[start : start + step]
        if bandwidth is None:
            entropy_N[start : start + step] = _entropy_silverman(part_ND)
        else:
            unit_ND = (part_ND - part_ND.min(1, keepdims=True)) / bandwidth
            entropy_N[start : start + step] = _entropy_by_size(unit_ND) + np.log(bandwidth)
    return entropy_N


def _entropy_silverman(values_ND: Doubles) -> Doubles:
    draws = values_ND.shape[1]
    low_N, high_N = values_ND.min(1), values_ND.max(1)
    # halves, because the range of the largest floats would overflow
    half_range_N = high_N / 2 - low_N / 2
    largest_N = np.maximum(abs(low_N), abs(high_N))
    (rows,) = np.nonzero(half_range_N > 2 * np.finfo(np.float64).eps * largest_N)
    entropy_N = np.full(len(values_ND), np.nan)
    if not len(rows):
        return entropy_N
    # first in units of the range, so that the variance neither underflows nor overflows, then in units of the bandwidth
    unit_ND = (values_ND[rows] / 2 - low_N[rows, None] / 2) / half_range_N[rows, None]
    bandwidth_N = silverman_factor(draws) * unit_ND.std(1, ddof=1)
    unit_ND /= bandwidth_N[:, None]
    entropy_N[rows] = _entropy_by_size(unit_ND) + (np.log(2 * bandwidth_N) + np.log(half_range_N[rows]))
    return entropy_N


def _entropy_by_size(unit_ND: Doubles) -> Doubles:
    """The entropy of rows that start at 0, in units of their bandwidth; rows with grids of the same size together."""
    nodes_N = np.ceil((unit_ND.max(1) + 2 * _TAIL) * _NODES_PER_BANDWIDTH)
    size_N = np.exp2(np.ceil(np.log2(nodes_N))).astype(np.int64)
    entropy_N = np.empty(len(unit_ND))
    for size in np.unique(size_N):
        (same,) = np.nonzero(size_N == size)
        step = max(1, _WORKING_SET // int(size))
        for start in range(0, len(same), step):
            part = same[start : start + step]
            entropy_N[part] = _entropy_in_bandwidths(unit_ND[part], int(size))
    return entropy_N


def _entropy_in_bandwidths(unit_ND: Doubles, size: int) -> Doubles:
    """The entropy of rows that start at 0, in units of their bandwidth, on a grid of `size` nodes."""
    from scipy.fft import irfft, rfft
    from scipy.special import entr

    distance = 1 / _NODES_PER_BANDWIDTH
    mass_NM = _spread(unit_ND * _NODES_PER_BANDWIDTH + _TAIL * _NODES_PER_BANDWIDTH, size)
    # multiplied by the transform of the Gaussian; only values beyond the tails wrap around
    frequency_M = 2 * np.pi * np.arange(size // 2 + 1) / (size * distance)
    density_NM = irfft(rfft(mass_NM) * np.exp(-0.5 * frequency_M**2), n=size) / distance
    # far out, cubic interpolation goes below 0 by about a rounding error
    entropy_N: Doubles = entr(np.maximum(density_NM, 0.0)).sum(1) * distance
    return entropy_N


def _spread(position_ND: Doubles, size: int) -> Doubles:
    """Spread each draw's mass 1/D over the four nodes around it, with the weights of cubic (Lagrange) interpolation."""
    count, draws = position_ND.shape
    left_ND = np.floor(position_ND)
    f = position_ND - left_ND
    node_ND = left_ND.astype(np.int64) + (np.arange(count) * size)[:, None]
    weights = (
        -f * (f - 1) * (f - 2) / 6,
        (f + 1) * (f - 1) * (f - 2) / 2,
        -(f + 1) * f * (f - 2) / 2,
        (f + 1) * f * (f - 1) / 6,
    )
    mass = np.zeros(count * size)
    for offset, weight_ND in enumerate(weights, start=-1):
        mass += np.bincount((node_ND + offset).ravel(), weight_ND.ravel(), minlength=count * size)
    mass /= draws
    return mass.reshape(count, size)
