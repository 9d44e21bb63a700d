"""Gaussian noise around answers that are numbers: what is not explained by the spread of a row's networks.

An answer of one network says nothing about its own error, and draws of a network only where the networks differ.
Noise of its own for every row, chosen on the validation split, makes all rows distributions that can be compared, as a
temperature does for classes. Every distribution has about `POINTS` points, since the score depends on their number.

Dims: K networks, N samples, M points.
"""

import math
from collections.abc import Sequence

from torch import Tensor

from ocd_core.rng import sample_normal
from ocd_core.samples import Batch, Tensors, concatenate, flat, map_tensors
from ocd_core.tasks.metric import Metric

POINTS = 200
_RANGE = (1e-2, 3.0)  # times the rms error of the row's mean


class Noise:
    """Gaussian noise for the points of some samples, drawn once for all rows; it depends on the seed and the sample.

    Args:
        sample_id: int64 (N,).
    """

    def __init__(self, sample_id: Tensor, seed: int) -> None:
        self.sample_id, self._seed = sample_id, seed
        self._drawn: dict[tuple[int, ...], Tensor] = {}

    def widened(self, draws_KN: Tensors, deviation: float) -> Tensors:
        """M points: each network's outputs as often as gives at least `POINTS`, plus noise; each (M, N, ...).

        Args:
            deviation: the noise's standard deviation.
        """

        def points(y_KN: Tensor) -> Tensor:
            repeats = math.ceil(POINTS / len(y_KN))
            repeated = y_KN.repeat(repeats, *[1] * (y_KN.dim() - 1))
            return repeated + deviation * self._standard((len(repeated), *y_KN.shape[2:])).to(y_KN)

        return map_tensors(points, draws_KN)

    def _standard(self, shape: tuple[int, ...]) -> Tensor:
        """Of each point, float32 (M, N, ...)."""
        if shape not in self._drawn:
            drawn_NM = sample_normal(shape, self.sample_id.tolist(), self._seed, "noise of answers")
            self._drawn[shape] = drawn_NM.transpose(0, 1)
        return self._drawn[shape]


def choose_noise(score: Metric, draws: Sequence[Tensors], targets: Sequence[Tensors], noise: Noise) -> float:
    """The deviation with the best mean score of one row on the validation split; 0 if no noise is better.

    Args:
        score: sees draws.
        draws: the outputs of K networks for each batch, each (K, N, ...).
        targets: of the batches.
        noise: for the whole split.
    """
    from scipy.optimize import minimize_scalar

    y_KN = concatenate(draws, axis=1)
    batch = Batch((), concatenate(targets), noise.sample_id)
    sign = -1 if score.higher_is_better else 1

    def loss(deviation: float) -> float:
        points = noise.widened(y_KN, deviation)
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
