"""Read a store: one interface for both layouts and for local and remote stores."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import zarr

from ocd_core.errors import UserError
from ocd_core.files import is_shortage
from ocd_core.samples import Condition
from ocd_core.store.factored import optimizer_of, rebuild_delta
from ocd_core.store.schema import ArraySpec, Layout, StoreSchema
from ocd_core.store.shards import decode_chunks, decode_shard, most_bytes
from ocd_core.store.source import Source, missing_files, open_arrays, read_node, schema_of
from ocd_core.weights import BaseId

_NO_FILE = (FileNotFoundError, IsADirectoryError, NotADirectoryError)
Rows = slice | npt.NDArray[Any] | None


def row_numbers(rows: slice | npt.ArrayLike, count: int) -> npt.NDArray[np.int64]:
    """What `np.arange(count)[rows]` gives, without `count` numbers in memory: a store may claim any.

    Raises:
        IndexError: as numpy.
    """
    if isinstance(rows, slice):
        return np.arange(*rows.indices(count))
    chosen = np.asarray(rows) if np.size(rows) or isinstance(rows, np.ndarray) else np.empty(0, np.int64)
    np.broadcast_to(np.int8(0), (count,))[chosen]  # one byte that stands for all: numpy's own errors
    if chosen.dtype == bool:
        return np.flatnonzero(chosen)
    numbers = chosen.astype(np.int64)
    return np.where(numbers < 0, numbers + count, numbers)


def _count(rows: slice | npt.NDArray[Any], count: int) -> int:
    return len(range(*rows.indices(count))) if isinstance(rows, slice) else len(row_numbers(rows, count))


class OverfitStore:
    """A finished overfit store, for reading.

    Args:
        location: a path, or an fsspec URL such as s3://bucket/train.zarr.

    Raises:
        UserError: the store does not exist, is not an overfit store, has another schema version, is incomplete, or is
            damaged as far as is visible without decoding (`verify_store` decodes).

    Examples:
        >>> from ocd_core import OverfitStore
        >>> store = OverfitStore("runs/sums/data/sums/seed0/rank1/overfit/train.zarr")
        >>> len(store), store.layout, store.base.layer
        (40, 'dense', '0')
    """

    def __init__(self, location: Path | str) -> None:
        self.location = str(location)
        self._source = Source(location)
        node = read_node(self._source)
        self.attributes: dict[str, Any] = node["attributes"]
        self.schema: StoreSchema = schema_of(node)
        lost = missing_files(self._source.sizes(), self.schema)
        if lost:
            raise UserError(
                f"{self.location} is damaged: {lost[0]} is missing or empty ({len(lost)} such files); `ocd verify` "
                "lists them, and the overfit stage (or dvc repro) makes them again"
            )
        self._arrays = open_arrays(self._source, self.schema)

    def __reduce__(self) -> tuple[type["OverfitStore"], tuple[str]]:
        return type(self), (self.location,)  # open files and event loops do not travel

    def __len__(self) -> int:
        return self.schema.rows

    def __repr__(self) -> str:
        return f"OverfitStore({self.location!r}: {len(self)} samples, {self.layout})"

    @property
    def base(self) -> BaseId:
        """The base network and the layer that the stored Δ belong to."""
        return BaseId(str(self.attributes.get("base_sha256")), str(self.attributes.get("layer")))

    @property
    def layout(self) -> Layout:
        """`dense` or `factored`."""
        return self.schema.layout

    @property
    def steps(self) -> int:
        """The number of overfitting steps."""
        return self.schema.steps

    def array(self, name: str) -> zarr.Array[Any]:
        """An array by name, opened but not read.

        Raises:
            UserError: no array has that name.

        Examples:
            >>> store.array("delta").shape
            (40, 8, 3)
        """
        if name not in self._arrays:
            raise UserError(f"{self.location} has no array {name!r}; it has {', '.join(self._arrays)}")
        return self._arrays[name]

    def read(self, name: str, rows: Rows = None) -> npt.NDArray[Any]:
        """Some samples of an array: all, a slice, indices in any order, or a mask.

        Returns:
            (n, ...) in the dtype of the array.

        Raises:
            IndexError: a row is out of range.
            UserError: what is read is damaged, or no array has that name.

        Examples:
            >>> store.read("loss_before", slice(0, 5)).shape
            (5,)
        """
        values = self._read(name, rows)
        self._source.check_same()
        return values

    def _read(self, name: str, rows: Rows) -> npt.NDArray[Any]:
        self.array(name)  # an unknown one is an error
        spec = self.schema.arrays()[name]
        if rows is None:
            rows = slice(None)
        if isinstance(rows, slice):
            start, stop, step = rows.indices(len(self))
            if step == 1:
                return self._read_range(name, start, max(start, stop))
        wanted = row_numbers(rows, len(self))
        if not len(wanted):
            return np.empty((0, *spec.shape[1:]), spec.dtype)
        kept, inverse = np.unique(wanted, return_inverse=True)  # each chunk is decoded once, in order
        with self._damage_named(name):
            return self._read_rows(spec, kept)[inverse]

    def _read_range(self, name: str, start: int, stop: int) -> npt.NDArray[Any]:
        """Rows start to stop, by shard; whole shards are read at once."""
        spec, size = self.schema.arrays()[name], self.schema.shard_rows
        if slice(start, stop) == self.schema.shard_slice(min(start // size, self.schema.shard_count - 1)):
            with self._damage_named(name):
                return self._read_shard(spec, start // size)
        values = np.empty((stop - start, *spec.shape[1:]), spec.dtype)
        for shard in range(start // size, -(-stop // size)):
            whole = self.schema.shard_slice(shard)
            part = slice(max(start, whole.start), min(stop, whole.stop))
            with self._damage_named(name):
                values[part.start - start : part.stop - start] = (
                    self._read_shard(spec, shard)
                    if part == whole
                    else self._read_rows(spec, np.arange(part.start, part.stop))
                )
        return values

    def _read_shard(self, spec: ArraySpec, shard: int) -> npt.NDArray[Any]:
        rows = self.schema.shard_slice(shard)
        if self._source.size(spec.file(shard)) > most_bytes(spec):
            raise ValueError("a file is larger than a shard can be")
        data = self._source.read(spec.file(shard))
        values, broken = decode_shard(spec, self.schema.codec, data, rows.stop - rows.start)
        if values is None:
            raise ValueError(broken[0].problem)
        return self._sound(spec, values)

    def _read_rows(self, spec: ArraySpec, rows: npt.NDArray[np.int64]) -> npt.NDArray[Any]:
        """Rows in order, of which only their chunks are read: zarr would trust what a chunk says of its size."""
        values = np.empty((len(rows), *spec.shape[1:]), spec.dtype)
        for shard in np.unique(rows // self.schema.shard_rows):
            at = np.flatnonzero(rows // self.schema.shard_rows == shard)
            chunk, place = np.divmod(rows[at] - shard * self.schema.shard_rows, spec.chunk[0])
            read = partial(self._source.read_part, spec.file(int(shard)))
            found = decode_chunks(spec, self.schema.codec, np.unique(chunk).tolist(), read)
            for number, decoded in found.items():
                values[at[chunk == number]] = decoded[place[chunk == number]]
        return self._sound(spec, values)

    @staticmethod
    def _sound(spec: ArraySpec, values: npt.NDArray[Any]) -> npt.NDArray[Any]:
        if len(spec.bad_rows(values)):
            raise ValueError("it holds NaN or infinity")
        return values

    @contextmanager
    def _damage_named(self, name: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:  # codecs and checksums raise many kinds, which mean damage
            if is_shortage(error) or (isinstance(error, OSError) and not isinstance(error, _NO_FILE)):
                raise  # the machine's fault, or the disk's
            self._source.check_same()
            reason = " ".join(str(error).split())[:120]
            raise UserError(
                f"{self.location} is damaged: {name} does not decode ({reason}); `ocd verify` "
                "lists what is, and the overfit stage (or dvc repro) makes it again"
            ) from error

    def delta(self, row: int) -> npt.NDArray[np.float32]:
        """Δ of one sample, (O, I) float32.

        Raises:
            IndexError: the row is out of range.
            UserError: what is read is damaged, or another store has taken this one's place.

        Examples:
            >>> store.delta(7).shape
            (8, 3)
        """
        delta_OI: npt.NDArray[np.float32] = self.deltas(np.array([row]))[0]
        return delta_OI

    def deltas(self, rows: Rows = None) -> npt.NDArray[np.float32]:
        """Δ of some samples, (n, O, I) float32: read, or rebuilt from the factors.

        Raises:
            IndexError: a row is out of range.
            UserError: what is read is damaged, or another store has taken this one's place.

        Examples:
            >>> import numpy as np
            >>> delta = store.deltas(np.array([3, 1]))
            >>> bool(np.allclose(np.linalg.norm(delta, axis=(1, 2)), store.read("rho", np.array([3, 1]))))
            True
        """
        if self.layout == "dense":
            return self.read("delta", rows)
        return self.rebuild(self.read("grad_u", rows), self.read("layer_input", rows))

    def rows_of_replica(self, replica: int) -> int:
        """The number of rows of this repetition: the number of samples, if every sample has it."""
        return int((self._ids[1] == replica).sum())

    def deltas_of_samples(self, sample_id: npt.NDArray[Any], replica: int = 0) -> npt.NDArray[np.float32]:
        """Δ (n, O, I) float32 of samples by their rows in the prepared data.

        Args:
            sample_id: integers (n,).
            replica: which repetition.

        Raises:
            UserError: a sample is not in this store, or what is read is damaged.

        Examples:
            >>> store.deltas_of_samples(np.array([12])).shape
            (1, 8, 3)
        """
        rows = np.flatnonzero(self._ids[1] == replica)
        order = rows[np.argsort(self._ids[0][rows])]
        known = self._ids[0][order]
        lost = np.asarray(sample_id)[~np.isin(sample_id, known)]
        if len(lost):
            raise UserError(f"{self.location} has no sample {lost[0]} with replica {replica}")
        return self.deltas(order[np.searchsorted(known, sample_id)])

    def rebuild(self, grad_u_NKO: npt.NDArray[Any], layer_input_NI: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
        """Δ (N, O, I) float32 from the factors, with this store's optimiser.

        Raises:
            UserError: Δ is not finite.
        """
        with np.errstate(over="ignore", invalid="ignore"):
            delta_NOI = rebuild_delta(grad_u_NKO, layer_input_NI, *self._optimizer)
        if not np.isfinite(delta_NOI).all():
            raise UserError(f"{self.location} is damaged: Δ is not finite when rebuilt from its factors")
        return delta_NOI

    def condition(self, rows: Rows = None) -> Condition:
        """I(x) of some samples, each part float32 (n, ...); parts that the task leaves out are empty.

        Raises:
            IndexError: a row is out of range.
            UserError: what is read is damaged, or another store has taken this one's place.

        Examples:
            >>> store.condition(slice(0, 2)).layer_input.shape
            torch.Size([2, 3])
        """
        schema, arrays = self.schema, self.schema.arrays()
        shapes = {
            "layer_input": schema.layer_input,
            "layer_activation": schema.layer_activation,
            "base_output": schema.base_output,
        }
        count = len(self) if rows is None else _count(rows, len(self))
        return Condition(
            *(
                torch.from_numpy(self.read(name, rows)) if name in arrays else torch.empty(count, *shape)
                for name, shape in shapes.items()
            )
        )

    @cached_property
    def _ids(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        return self.read("sample_id"), self.read("replica")

    @cached_property
    def _optimizer(self) -> tuple[str, float]:
        return optimizer_of(self.attributes)
