"""The content of an overfit store: its arrays, their dims, and the division of their samples into shards.

All arrays have the samples in the first axis and the same range of samples in shard i, so that one shard of every array
is one unit of work, loss and repair.

Dims: N samples, K steps, O out_features, I in_features of the overfitted layer.
"""

import math
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from ocd_core.errors import UserError

SCHEMA_VERSION = 1
FORMAT = "ocd-overfit-store"
Layout = Literal["dense", "factored"]
Codec = Literal["none", "lz4", "zstd"]
# Δ of a layer between ReLUs is mostly zeros, in runs that lz4 finds without shuffling; other Δ barely compress
DEFAULT_CODEC: Codec = "lz4"
# A chunk is what one read decodes: small enough for single samples, large enough that its overhead does not matter
CHUNK_BYTES = 2**19


@dataclass(frozen=True)
class ArraySpec:
    """One array of a store.

    shape, dims: of the whole array, samples first. chunk, shard: the shape that is decoded at once, and that of a file.
    fill: what a missing chunk would read as, a value that no stored number has.
    """

    name: str
    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    dims: tuple[str, ...]
    chunk: tuple[int, ...]
    shard: tuple[int, ...]
    fill: float | int
    attributes: dict[str, str]

    @property
    def chunks_per_shard(self) -> int:
        """The number of chunks in a full shard."""
        return self.shard[0] // self.chunk[0]

    def bad_rows(self, values: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
        """The rows that hold NaN or infinity, which only float labels may: everything else must be finite.

        A label belongs to the task (NaN may stand for a missing one); the rest is computed, and trained on.
        """
        if self.dtype.kind != "f" or self.name == "target":
            return np.empty(0, np.int64)
        finite = np.isfinite(values)
        return np.empty(0, np.int64) if finite.all() else np.flatnonzero(~finite.reshape(len(values), -1).all(1))

    def file(self, shard: int) -> str:
        """The key of a shard, relative to the store."""
        return f"{self.name}/c." + ".".join([str(shard), *["0"] * (len(self.shape) - 1)])


@dataclass(frozen=True)
class StoreSchema:
    """The shape of an overfit store.

    layer_input, layer_activation, base_output, target_shape: shapes of one sample; a part of I(x) that a task leaves
    out has a shape with a 0, and no array. target_dtype: a numpy name.
    shard_rows: samples per shard; `plan` chooses it. layout: `dense` keeps Δ, `factored` its gradient factors
    (ocd_core.store.factored), which is exact only for a linear layer at one position.

    Raises:
        UserError: the layout is factored, but the layer's input is not one vector.
    """

    layout: Layout
    rows: int
    out_features: int
    in_features: int
    steps: int
    layer_input: tuple[int, ...]
    layer_activation: tuple[int, ...]
    base_output: tuple[int, ...]
    target_shape: tuple[int, ...]
    target_dtype: str
    shard_rows: int
    codec: Codec = DEFAULT_CODEC

    def __post_init__(self) -> None:
        assert self.layout in get_args(Layout), self.layout
        assert self.codec in get_args(Codec), self.codec
        assert min(self.rows, self.out_features, self.in_features, self.steps, self.shard_rows) >= 1, self
        assert np.dtype(self.target_dtype).kind in "fiu", f"targets are stored as numbers, not {self.target_dtype}"
        if self.layout == "factored" and self.layer_input != (self.in_features,):
            raise UserError(
                f"overfit.layout: factored needs a layer input of one vector of {self.in_features} numbers, but this "
                f"layer's is {self.layer_input}: its gradients are not outer products; use layout: dense"
            )

    @classmethod
    def plan(cls, *, shard_mb: float, **values: Any) -> "StoreSchema":
        """A schema whose shards hold about `shard_mb` MiB of all arrays together, uncompressed, evenly filled.

        values: all fields except shard_rows.
        """
        one = cls(shard_rows=1, **values)
        row_bytes = sum(_row_bytes(spec) for spec in one.arrays().values())
        largest = max(_row_bytes(spec) for spec in one.arrays().values())
        shards = max(1, math.ceil(one.rows * row_bytes / (shard_mb * 2**20)))
        rows = math.ceil(one.rows / shards)
        # a multiple of a power of two, so that chunks of many sizes divide it
        step = 1 << max(0, min(rows, CHUNK_BYTES // largest).bit_length() - 1)
        return cls(shard_rows=math.ceil(rows / step) * step, **values)

    @property
    def shard_count(self) -> int:
        """The number of shards of each array."""
        return -(-self.rows // self.shard_rows)

    def shard_slice(self, shard: int) -> slice:
        """The samples of a shard."""
        assert 0 <= shard < self.shard_count, shard
        return slice(shard * self.shard_rows, min(self.rows, (shard + 1) * self.shard_rows))

    def arrays(self) -> dict[str, ArraySpec]:
        """The arrays by name; `sample_id` comes last and is written last. An empty part of I(x) has none."""
        if self.layout == "dense":
            shape, dims = (self.out_features, self.in_features), ("out_features", "in_features")
            moved = self._spec("delta", "float32", shape, "weight change of the layer, θ_s − θ", dims)
        else:
            shape, dims = (self.steps, self.out_features), ("step", "out_features")
            text = "gradient of the loss by the layer's output; that by its weight is grad_u ⊗ layer_input"
            moved = self._spec("grad_u", "float32", shape, text, dims)
        activation = "a_L, output of the layer after its non-linearity, in the base network"
        specs = (
            moved,
            self._spec("layer_input", "float32", self.layer_input, "i_L, input of the layer"),
            self._spec("layer_activation", "float32", self.layer_activation, activation),
            self._spec("base_output", "float32", self.base_output, "f_θ(x), output of the base network"),
            self._spec("rho", "float64", (), "Frobenius norm of the weight change"),
            self._spec("loss_before", "float64", (), "loss of this sample under the base network"),
            self._spec("loss_after", "float64", (self.steps,), "loss of this sample after each step", ("step",)),
            self._spec("target", self.target_dtype, self.target_shape, "label of the sample"),
            self._spec("replica", "int64", (), "which repetition of the sample"),
            self._spec("sample_id", "int64", (), "row of the sample in the prepared data"),
        )
        return {spec.name: spec for spec in specs if math.prod(spec.shape)}

    def _spec(
        self, name: str, dtype: str, shape: tuple[int, ...], text: str, dims: tuple[str, ...] | None = None
    ) -> ArraySpec:
        kind = np.dtype(dtype)
        chunk_rows = _chunk_rows(self.shard_rows, math.prod(shape) * kind.itemsize)
        fill = math.nan if kind.kind == "f" else -1 if kind.kind == "i" else int(np.iinfo(kind).max)
        return ArraySpec(
            name,
            kind,
            (self.rows, *shape),
            ("sample", *(dims or (f"{name}_{axis}" for axis in range(len(shape))))),
            (chunk_rows, *shape),
            (self.shard_rows, *shape),
            fill,
            {"long_name": text, "units": "1"},
        )

    def to_json(self) -> dict[str, Any]:
        """Plain values for the store's attributes."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items()}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "StoreSchema":
        """The inverse of `to_json`.

        Raises:
            KeyError, TypeError, AssertionError: the values are not a schema.
        """
        plain: dict[str, Any] = {f.name: values[f.name] for f in fields(cls)}
        for name, value in plain.items():
            plain[name] = tuple(value) if isinstance(value, list) else value
        return cls(**plain)


def _row_bytes(spec: ArraySpec) -> int:
    return math.prod(spec.shape[1:]) * spec.dtype.itemsize


def _chunk_rows(shard_rows: int, row_bytes: int) -> int:
    """The largest divisor of shard_rows whose chunk fits in CHUNK_BYTES, at least 1."""
    most = max(1, min(shard_rows, CHUNK_BYTES // max(1, row_bytes)))
    return next(n for n in range(most, 0, -1) if shard_rows % n == 0)
