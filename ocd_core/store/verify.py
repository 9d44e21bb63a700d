"""Finding damage: every shard of every array is decoded.

Bit flips and truncation break a checksum. A shard that is missing or empty, or that lacks chunks, would read as
fill values without an error, so that is looked for by itself.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr

from ocd_core.store.metadata import ZARR_JSON, samples_digest
from ocd_core.store.schema import ArraySpec, StoreSchema
from ocd_core.store.source import DamagedStoreError, Source, open_arrays, read_node, schema_of

_INDEX_ENTRY, _CHECKSUM = 16, 4  # bytes; the shard's index: offset and length of each chunk, then its crc32c
_ABSENT = 2**64 - 1


@dataclass(frozen=True)
class Damage:
    """One thing that is wrong. rows: the samples it touches. shard, array: None where it is not in one."""

    shard: int | None
    array: str | None
    rows: range
    problem: str

    def __str__(self) -> str:
        place = [p for p in (f"shard {self.shard}" if self.shard is not None else "", self.array or "") if p]
        rows = f" (samples {self.rows.start} to {self.rows.stop - 1})" if len(self.rows) else ""
        return f"{' of '.join(place)}{rows}: {self.problem}" if place else self.problem


def verify_store(location: Path | str, progress: Callable[[int, int], None] | None = None) -> list[Damage]:
    """Decode every shard of every array of a store.

    progress: called with (shards done, shards in all).

    Returns:
        what is wrong, by shard; empty for a sound store.

    Raises:
        UserError: nothing is there, or it is not an overfit store of this schema version.
    """
    source = Source(location)
    try:
        node = read_node(source)
    except DamagedStoreError as error:
        return [Damage(None, None, range(0), str(error))]
    schema = schema_of(node)
    found = metadata_damage(source, node)
    arrays = open_arrays(source.zarr_store(), list(schema.arrays()), consolidated=True)
    sizes = source.sizes()
    for shard, digest in enumerate(node["attributes"]["shard_samples"]):
        found += shard_damage(source, sizes, schema, arrays, shard, digest)
        if progress:
            progress(shard + 1, schema.shard_count)
    return found


def metadata_damage(source: Source, node: dict[str, Any]) -> list[Damage]:
    """Arrays whose own zarr.json is not what the group's says."""
    found = []
    for name, expected in node["consolidated_metadata"]["metadata"].items():
        try:
            if json.loads(source.read(f"{name}/{ZARR_JSON}")) == expected:
                continue
            problem = f"its {ZARR_JSON} differs from the store's"
        except FileNotFoundError:
            problem = f"its {ZARR_JSON} is missing"
        except ValueError:
            problem = f"its {ZARR_JSON} cannot be read"
        found.append(Damage(None, name, range(0), problem))
    return found


def shard_damage(
    source: Source,
    sizes: dict[str, int],
    schema: StoreSchema,
    arrays: dict[str, zarr.Array[Any]],
    shard: int,
    digest: str,
) -> list[Damage]:
    """What is wrong with one shard, over all arrays; `digest` says which samples it must hold."""
    found = []
    ids: dict[str, npt.NDArray[np.int64]] = {}
    for name, spec in schema.arrays().items():
        rows = schema.shard_slice(shard)
        size = sizes.get(spec.file(shard))
        if not size:
            problem = "the file is missing" if size is None else "the file is empty"
            found.append(Damage(shard, name, range(rows.start, rows.stop), problem))
            continue
        values, problems = _decode(source, spec, arrays[name], shard, rows)
        found += problems
        if name in ("sample_id", "replica") and values is not None:
            ids[name] = values
    if len(ids) == 2 and samples_digest(ids["sample_id"], ids["replica"]) != digest:
        rows = schema.shard_slice(shard)
        found.append(Damage(shard, "sample_id", range(rows.start, rows.stop), "it holds other samples than it should"))
    return found


def _decode(
    source: Source, spec: ArraySpec, array: zarr.Array[Any], shard: int, rows: slice
) -> tuple[npt.NDArray[Any] | None, list[Damage]]:
    """A shard's values, or what keeps them from being read, by chunk."""
    try:
        values = np.asarray(array[rows])
    except Exception as error:  # codecs raise many kinds; each means the same
        return None, _broken_chunks(spec, array, shard, rows, error)
    starts = range(rows.start, rows.stop, spec.chunk[0])
    index = source.read(spec.file(shard), tail=spec.chunks_per_shard * _INDEX_ENTRY + _CHECKSUM)[:-_CHECKSUM]
    offsets = np.frombuffer(index, "<u8").reshape(-1, 2)[: len(starts), 0]
    absent = [
        Damage(shard, spec.name, range(start, min(rows.stop, start + spec.chunk[0])), "a chunk is absent")
        for start, offset in zip(starts, offsets, strict=True)
        if offset == _ABSENT
    ]
    return values if not absent else None, absent


def _broken_chunks(spec: ArraySpec, array: zarr.Array[Any], shard: int, rows: slice, error: Exception) -> list[Damage]:
    """The chunks of a shard that do not decode; the whole shard if that cannot be narrowed down."""
    found = []
    for start in range(rows.start, rows.stop, spec.chunk[0]):
        stop = min(rows.stop, start + spec.chunk[0])
        try:
            array[start:stop]
        except Exception as chunk_error:
            found.append(Damage(shard, spec.name, range(start, stop), _reason(chunk_error)))
    if len(found) in (0, len(range(rows.start, rows.stop, spec.chunk[0]))):
        return [Damage(shard, spec.name, range(rows.start, rows.stop), _reason(error))]
    return found


def _reason(error: Exception) -> str:
    if "checksum" in str(error).lower():
        return "its content does not match its checksum"
    return f"it does not decode ({type(error).__name__}: {' '.join(str(error).split())[:120]})"
