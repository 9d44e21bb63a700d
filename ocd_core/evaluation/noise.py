"""Gaussian noise around answers that are numbers: what is not explained by the spread of a row's networks.

An answer of one network says nothing about its own error, and draws of a network only where the networks differ.
Noise of its own for every row, chosen on the validation split, makes all rows distributions that can be compared, as a
temperature does for classes. Every distribution has about `POINTS` points, since the score depends on their number.

Dims: K networks, N samples, M points.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ocd_core.rng import sample_normal
from ocd_core.samples import Batch, Tensors, as_tuple, concatenate, flat, map_tensors
from ocd_core.tasks.metric import Metric

POINTS = 200
_RANGE = (1e-2, 3.0)  # times the rms error of the row's mean


def widened(draws_KN: Tensors, deviation: float, sample_id: Tensor, seed: int) -> Tensors:
    """M points: each network's outputs as often as gives at least `POINTS`, plus Gaussian noise; each (M, N, ...).

    The noise depends only on the seed and the sample.

    Args:
        deviation: the noise's standard deviation.
    """

    def points(y_KN: Tensor) -> Tensor:
        return _repeated(y_KN) + deviation * _noise(y_KN, sample_id, seed)

    return map_tensors(points, draws_KN)


def _repeated(y_KN: Tensor) -> Tensor:
    return y_KN.repeat(math.ceil(POINTS / len(y_KN)), *[1] * (y_KN.dim() - 1))


def _noise(y_KN: Tensor, sample_id: Tensor, seed: int) -> Tensor:
    """Of each point, (M, N, ...)."""
    shape = (len(y_KN) * math.ceil(POINTS / len(y_KN)), *y_KN.shape[2:])
    return sample_normal(shape, sample_id.tolist(), seed, "noise of answers").transpose(0, 1).to(y_KN)


def choose_noise(score: Metric, draws: Sequence[Tensors], batches: Sequence[Batch], seed: int) -> float:
    """The deviation with the best mean score of one row on the validation split; 0 if no noise is better.

    Args:
        score: sees draws.
        draws: the outputs of K networks for each batch, each (K, N, ...).
    """
    from scipy.optimize import minimize_scalar

    y_KN = concatenate(draws, axis=1)
    batch = Batch((), concatenate([b.target for b in batches]), torch.cat([b.sample_id for b in batches]))
    sign = -1 if score.higher_is_better else 1
    parts = [(_repeated(part_KN), _noise(part_KN, batch.sample_id, seed)) for part_KN in as_tuple(y_KN)]

    def loss(deviation: float) -> float:
        widened_parts = tuple(repeated + deviation * noise for repeated, noise in parts)
        points = widened_parts[0] if isinstance(y_KN, Tensor) else widened_parts
        return sign * float(score.measure(map_tensors(lambda x: x[0], points), batch, points).double().mean())

    mean = map_tensors(lambda x: x.double().mean(0), y_KN)
    error = float((flat(mean) - flat(batch.target)).square().mean().sqrt())
    if not error:
        return 0.0
    bounds = tuple(math.log(factor * error) for factor in _RANGE)
    found = math.exp(
        minimize_scalar(lambda v: loss(math.exp(v)), bounds=bounds, method="bounded", options={"xatol": 1e-3}).x
    )
    return found if loss(found) < loss(0.0) else 0.0
