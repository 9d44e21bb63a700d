"""The geometry of a store's weight changes: means by class, singular values, nearest neighbours.

Δ of a large store does not fit in memory, so each statistic uses a seeded subset of rows within a memory bound, read in
pieces. Everything works for both layouts.

Dims: N rows in the subset, O out_features, I in_features, R = min(O, I) singular values, K neighbours.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ocd_core.rng import numpy_generator
from ocd_core.store import OverfitStore
from ocd_core.store.summary import Float64, Int64, RowValues, ranged, row_pieces, subset

MEAN_BYTES = 2**30  # of Δ read for the means
COMPARED_BYTES = 2**27  # of Δ held at once for the neighbours
MOST_COMPARED = 1000
MOST_DECOMPOSED = 256
NEIGHBOURS = 10
_SVD_COST = 2e10  # multiplications, roughly


@dataclass(frozen=True)
class MeanDeltas:
    """Mean Δ of each class, {class: (O, I) float64}, and the number of rows of each; class None stands for all rows."""

    mean: dict[int | None, Float64]
    rows: dict[int | None, int]


@dataclass(frozen=True)
class Neighbours:
    """The nearest neighbours of N rows among each other, by the cosine of their Δ.

    rows: int64 (N,), rows of distinct samples, each with Δ ≠ 0. near: int64 (N, K), positions in `rows`, nearest first.
    cosine: (N, K). other: (N,) cosine with a row drawn at random, for comparison. other_near: int64 (N,), its position.
    target: (N, ...). classes: as in RowValues.
    """

    rows: Int64
    near: Int64
    cosine: Float64
    other_near: Int64
    other: Float64
    target: npt.NDArray[Any]
    classes: int | None

    def same_class(self, k: int) -> float:
        """The share of the k nearest neighbours that have the same class as the row."""
        return float((self.target[self.near[:, :k]] == self.target[:, None]).mean())

    def same_class_by_chance(self) -> float:
        """The same share among all other rows."""
        counts = np.unique(self.target, return_counts=True)[1].astype(float)
        return float((counts * (counts - 1)).sum() / (len(self.rows) * (len(self.rows) - 1)))

    def target_distance(self) -> tuple[float, float]:
        """Mean Euclidean distance from a row's target to its nearest neighbour's target, and to a random row's."""
        flat = self.target.reshape(len(self.target), -1).astype(np.float64)
        near, other = (np.linalg.norm(flat - flat[i], axis=1).mean() for i in (self.near[:, 0], self.other_near))
        return float(near), float(other)

    def class_table(self) -> Float64:
        """The share of rows of class r whose nearest neighbour has class c, (C, C); NaN for absent classes."""
        assert self.classes is not None
        table: Float64 = np.zeros((self.classes, self.classes))
        np.add.at(table, (self.target, self.target[self.near[:, 0]]), 1)
        total = table.sum(1, keepdims=True)
        shares: Float64 = np.divide(table, total, out=np.full_like(table, np.nan), where=total > 0)
        return shares


def mean_deltas(store: OverfitStore, values: RowValues, most_bytes: int = MEAN_BYTES) -> MeanDeltas:
    """Mean Δ of each class, or of all rows if there are no classes."""
    row_bytes = _row_bytes(store)
    chosen = subset(len(values), max(1, most_bytes // row_bytes), "means")
    labels = None if values.classes is None else values.target[chosen]
    total: dict[int | None, Float64] = {}
    count: dict[int | None, int] = {}
    rows = values.rows[chosen]
    for piece in row_pieces(rows, row_bytes):
        delta_NOI = store.deltas(ranged(rows[piece]))
        label = None if labels is None else labels[piece]
        for key in [None] if label is None else np.unique(label).tolist():
            part = delta_NOI if label is None else delta_NOI[label == key]
            total[key] = total.get(key, 0.0) + part.sum(0, dtype=np.float64)
            count[key] = count.get(key, 0) + len(part)
    order = sorted(total, key=lambda key: -1 if key is None else key)
    return MeanDeltas({key: total[key] / count[key] for key in order}, {key: count[key] for key in order})


def singular_values(store: OverfitStore, most: int = MOST_DECOMPOSED) -> Float64:
    """Singular values of Δ, descending, for a seeded subset of rows, (N, R) float64; fewer rows for large layers."""
    outs, ins = store.schema.out_features, store.schema.in_features
    affordable = int(_SVD_COST / (20 * min(outs, ins) ** 2 * max(outs, ins)))
    rows = subset(len(store), min(most, max(4, affordable)), "singular values")
    pieces = row_pieces(rows, 2 * _row_bytes(store))
    return np.concatenate(
        [np.linalg.svd(store.deltas(ranged(rows[p])).astype(np.float64), compute_uv=False) for p in pieces]
    )


def nearest_neighbours(store: OverfitStore, values: RowValues, most: int = MOST_COMPARED) -> Neighbours | None:
    """Compare Δ of a seeded subset of rows with each other; None if fewer than two rows have Δ ≠ 0.

    Only one row per sample is compared (its first replica), so that a sample is not its own neighbour.
    """
    first = store.read("replica", values.rows) == 0
    candidates = np.flatnonzero(first & (values.rho > 0))
    limit = min(most, COMPARED_BYTES // _row_bytes(store))
    chosen = candidates[subset(len(candidates), max(2, limit), "neighbours")]
    if len(chosen) < 2:
        return None
    unit_ND = np.empty((len(chosen), store.schema.out_features * store.schema.in_features), np.float32)
    rows = values.rows[chosen]
    for piece in row_pieces(rows, 2 * _row_bytes(store)):
        flat = store.deltas(ranged(rows[piece])).astype(np.float64).reshape(-1, unit_ND.shape[1])
        norm = np.linalg.norm(flat, axis=1, keepdims=True)
        unit_ND[piece] = flat / np.where(norm > 0, norm, 1)
    cosine_NN = np.clip((unit_ND @ unit_ND.T).astype(np.float64), -1, 1)
    np.fill_diagonal(cosine_NN, -np.inf)
    near = np.argsort(-cosine_NN, axis=1, kind="stable")[:, : min(NEIGHBOURS, len(chosen) - 1)]
    other_near = _random_other(len(chosen))
    at_row = np.arange(len(chosen))
    return Neighbours(
        rows,
        near,
        np.take_along_axis(cosine_NN, near, axis=1),
        other_near,
        cosine_NN[at_row, other_near],
        values.target[chosen],
        values.classes,
    )


def _random_other(count: int) -> Int64:
    """A different position for each of `count` positions, seeded."""
    shift = numpy_generator(0, "another row").integers(1, count, size=count)
    return np.asarray((np.arange(count) + shift) % count, np.int64)


def _row_bytes(store: OverfitStore) -> int:
    return 4 * store.schema.out_features * store.schema.in_features
