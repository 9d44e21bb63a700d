"""Write a store: one protocol for a folder on this machine and for a URL.

A store is made shard by shard, by one process (`Writer.write`) or by many (`Writer.sink`, `Writer.accept`), and is a
store only after `Writer.finish`. A shard is the same range of samples of every array: it counts if the files of all
arrays exist, decode and hold the expected samples, so progress is not recorded anywhere else.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol, Self

import numpy as np
import numpy.typing as npt

from ocd_core.store.metadata import array_metadata, group_attributes, group_metadata
from ocd_core.store.schema import StoreSchema
from ocd_core.store.shards import encode_shard
from ocd_core.store.source import Source
from ocd_core.store.verify import Damage, shard_damage

Arrays = Mapping[str, npt.NDArray[Any]]


class Sink(Protocol):
    """Writes whole shards of one store; it is small and can be sent to other processes and machines.

    Two sinks may write different shards at the same time, or the same shard twice, even if one outlived the run that
    started it: a shard's bytes depend only on its values, and each file appears complete.
    """

    @property
    def schema(self) -> StoreSchema:
        """The store's arrays."""
        ...

    def write(self, shard: int, arrays: Arrays) -> list[str]:
        """Encode and write one shard of every array, sample_id's file last; returns the keys of its files."""
        ...


@dataclass(frozen=True)
class Content:
    """What is known of a store before its numbers are computed.

    schema: its arrays. attributes: plain JSON values for the group: config, layer, base weights, code version, seed.
    sample_id, replica: of all rows, int64 (rows,); no pair twice. fingerprint: of everything that determines the
    numbers (params, code, inputs).
    """

    schema: StoreSchema
    attributes: dict[str, Any]
    sample_id: npt.NDArray[Any]
    replica: npt.NDArray[Any]
    fingerprint: str


class Writer(ABC):
    """Makes or completes one store; a context manager.

    Sound shards that an earlier run with the same fingerprint left are kept.
    """

    def __init__(self, content: Content) -> None:
        schema = content.schema
        self.schema, self.fingerprint = schema, content.fingerprint
        ids = np.asarray(content.sample_id, np.int64), np.asarray(content.replica, np.int64)
        assert ids[0].shape == ids[1].shape == (schema.rows,), "one sample_id and replica per row"
        assert len(np.unique(np.stack(ids), axis=1).T) == schema.rows, "a sample and replica occurs twice"
        self._ids = {"sample_id": ids[0], "replica": ids[1]}
        self._arrays = array_metadata(schema)
        self._attributes = group_attributes(schema, content.attributes, *ids, content.fingerprint)
        self._group = group_metadata(self._attributes, self._arrays)
        self._good: set[int] = set()
        self._in_place = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @abstractmethod
    def close(self) -> None:
        """Release the store to other processes; what is written stays for the next run."""

    def missing(self) -> list[int]:
        """The shards that are still to be written, in order."""
        return [shard for shard in range(self.schema.shard_count) if shard not in self._good]

    @abstractmethod
    def write(self, shard: int, arrays: Arrays) -> None:
        """Write one shard: every array with the samples of the shard (sample_id and replica may be left out).

        Integers and floats are cast to the array's dtype. Each file appears complete, that of sample_id last.

        Raises:
            UserError: the disk is full.
        """

    @abstractmethod
    def sink(self) -> Sink:
        """The sink with which other processes write shards; `accept` the shards afterwards."""

    def accept(self, shard: int) -> list[Damage]:
        """Check a shard that another process wrote; without damage it is no longer missing."""
        damage = self._damage(self._source(), shard)
        if not damage:
            self._good.add(shard)
        return damage

    @abstractmethod
    def finish(self) -> None:
        """Complete the store; all shards must be written.

        Raises:
            UserError: files have been removed, or the disk is full.
        """

    @abstractmethod
    def _source(self) -> Source:
        """Where unfinished shards are."""

    def _damage(self, source: Source, shard: int) -> list[Damage]:
        """The faults of a shard."""
        return shard_damage(source, self.schema, shard, self._attributes["shard_samples"][shard])

    def _with_ids(self, shard: int, arrays: Arrays) -> Arrays:
        """A shard's arrays with sample_id and replica, which must match the content that was announced."""
        rows = self.schema.shard_slice(shard)
        ids = {name: values[rows] for name, values in self._ids.items()}
        for name, values in ids.items():
            assert np.array_equal(arrays.get(name, values), values), f"{name} is not what was announced"
        return {**arrays, **ids}


def encoded_shard(schema: StoreSchema, shard: int, arrays: Arrays) -> Iterator[tuple[str, Iterable[Any]]]:
    """The files of one shard, as (key, pieces of bytes), encoded one by one; that of sample_id comes last."""
    rows = schema.shard_slice(shard)
    specs = schema.arrays()
    assert set(arrays) == set(specs), f"got {sorted(arrays)}, need {sorted(specs)}"
    found = {}
    for name, spec in specs.items():
        value = np.asarray(arrays[name])
        shape = (rows.stop - rows.start, *spec.shape[1:])
        assert value.shape == shape, f"{name}: got {value.shape}, need {shape}"
        found[name] = value.astype(spec.dtype, casting="same_kind", copy=False)
    for name, spec in specs.items():
        yield spec.file(shard), encode_shard(spec, schema.codec, found[name])
