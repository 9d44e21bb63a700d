"""Numbers about a store's rows: sizes, ρ, losses, and which rows the base network gets right.

Only the numbers kept for each row are read here, never Δ (ocd_core.report.store_geometry reads it). Up to `MOST_ROWS`
rows everything is exact; a larger store is represented by a seeded subset.

Dims: N rows that are read, K steps, C classes.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ocd_core.rng import numpy_generator
from ocd_core.store import OverfitStore
from ocd_core.store.source import Source

MOST_ROWS = 200_000
_READ_BYTES = 2**25  # of one piece of a wide array
_SEED = 0  # the rows that represent a large store do not depend on the run

Float64 = npt.NDArray[np.float64]
Int64 = npt.NDArray[np.int64]


@dataclass(frozen=True)
class ArraySize:
    """An array's shape, and its size in bytes: uncompressed, and in the store's files."""

    name: str
    dims: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: str
    meaning: str
    units: str
    bytes: int
    stored_bytes: int


@dataclass(frozen=True)
class RowValues:
    """The numbers that a store keeps for each of N rows.

    rows: int64 (N,), ascending. rho: float64 (N,). loss: float64 (N, K + 1), under the base network and after each
    step. target: (N, ...). classes: C if the store is of a classification, else None. predicted: int64 (N,), the
    base network's class, or None.
    """

    rows: Int64
    rho: Float64
    loss: Float64
    target: npt.NDArray[Any]
    classes: int | None
    predicted: Int64 | None

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def correct(self) -> npt.NDArray[np.bool_] | None:
        """Which rows the base network gets right, (N,); None if there are no classes."""
        return None if self.predicted is None else np.asarray(self.predicted == self.target)


def array_sizes(store: OverfitStore) -> list[ArraySize]:
    """Every array of a store, in the schema's order."""
    files = Source(store.location).sizes()
    return [
        ArraySize(
            name,
            spec.dims,
            spec.shape,
            str(spec.dtype),
            spec.attributes["long_name"],
            spec.attributes["units"],
            math.prod(spec.shape) * spec.dtype.itemsize,
            sum(size for key, size in files.items() if key.startswith(f"{name}/")),
        )
        for name, spec in store.schema.arrays().items()
    ]


def subset(count: int, most: int, *purpose: str) -> Int64:
    """A seeded choice of at most `most` of range(count), int64, ascending."""
    if count <= most:
        return np.arange(count)
    return np.sort(numpy_generator(_SEED, "rows of a store", *purpose).choice(count, most, replace=False))


def read_rows(store: OverfitStore, most: int = MOST_ROWS) -> RowValues:
    """The numbers of all rows, or of a seeded subset of `most`.

    A store is of a classification if its attribute `classes` is a number C (base_output is then C scores, and the
    largest is the predicted class) and its target is one integer per row, within 0 .. C − 1.
    """
    rows = subset(len(store), most, "values")
    wanted = None if len(rows) == len(store) else rows
    target = store.read("target", wanted)
    classes = _classes(store, target)
    return RowValues(
        rows,
        store.read("rho", wanted),
        np.column_stack([store.read("loss_before", wanted), store.read("loss_after", wanted)]),
        target,
        classes,
        None if classes is None else _predicted(store, rows),
    )


def spread(values: Float64) -> dict[str, float]:
    """Minimum, quartiles, maximum and mean."""
    low, first, median, third, high = (float(q) for q in np.quantile(values, (0, 0.25, 0.5, 0.75, 1)))
    return {"min": low, "q25": first, "median": median, "q75": third, "max": high, "mean": float(values.mean())}


def row_pieces(rows: Int64, row_bytes: int, most_bytes: int = _READ_BYTES) -> list[slice]:
    """Where to cut `rows` into pieces of about `most_bytes`, at least one row each."""
    size = max(1, most_bytes // max(1, row_bytes))
    return [slice(start, min(start + size, len(rows))) for start in range(0, len(rows), size)]


def ranged(rows: Int64) -> slice | Int64:
    """Rows in ascending order, as a slice if none is left out: a store reads it faster and with less memory."""
    first, last = int(rows[0]), int(rows[-1])
    return slice(first, last + 1) if last - first + 1 == len(rows) else rows


def _classes(store: OverfitStore, target: npt.NDArray[Any]) -> int | None:
    classes = store.attributes.get("classes")
    scores = store.schema.base_output
    if not isinstance(classes, int) or scores != (classes,) or target.dtype.kind not in "iu" or target.ndim != 1:
        return None
    return classes if target.min() >= 0 and target.max() < classes else None


def _predicted(store: OverfitStore, rows: Int64) -> Int64:
    pieces = row_pieces(rows, 4 * store.schema.base_output[0])
    return np.concatenate([store.read("base_output", ranged(rows[piece])).argmax(1) for piece in pieces])
