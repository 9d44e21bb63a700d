"""Find damage: every shard of every array is decoded.

Bit flips and truncation break a checksum. A shard that is missing or empty, or that lacks chunks, would read as fill
values without an error, so there is a separate check for that. NaN and infinity are damage too: no sound value that is
computed for a store holds them.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ocd_core.errors import UserError
from ocd_core.store.metadata import ZARR_JSON, samples_digest
from ocd_core.store.schema import StoreSchema
from ocd_core.store.shards import decode_shard, most_bytes
from ocd_core.store.source import MOST_JSON_BYTES, DamagedStoreError, Source, read_node, schema_of


@dataclass(frozen=True)
class Damage:
    """One fault. rows: the samples it affects. shard, array: None if the fault is not in one."""

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

    progress: called with (shards done, shards in total).

    Returns:
        the faults, by shard; empty for a sound store.

    Raises:
        UserError: the store does not exist, is not an overfit store with this schema version, or is replaced meanwhile.
    """
    source = Source(location)
    try:
        node = read_node(source)
    except DamagedStoreError as error:
        return [Damage(None, None, range(0), str(error))]
    schema = schema_of(node)
    found = metadata_damage(source, node)
    for shard, digest in enumerate(node["attributes"]["shard_samples"]):
        found += shard_damage(source, schema, shard, digest)
        if progress:
            progress(shard + 1, schema.shard_count)
    if found:
        source.check_same()  # files of two stores look like damage
    return found


def metadata_damage(source: Source, node: dict[str, Any]) -> list[Damage]:
    """The arrays whose zarr.json differs from that in the group."""
    found = []
    for name, expected in node["consolidated_metadata"]["metadata"].items():
        try:
            small = source.size(f"{name}/{ZARR_JSON}") <= MOST_JSON_BYTES
            if small and json.loads(source.read(f"{name}/{ZARR_JSON}")) == expected:
                continue
            problem = f"its {ZARR_JSON} differs from the store's"
        except FileNotFoundError:
            problem = f"its {ZARR_JSON} is missing"
        except (ValueError, RecursionError, UserError):
            problem = f"its {ZARR_JSON} cannot be read"
        found.append(Damage(None, name, range(0), problem))
    return found


def shard_damage(source: Source, schema: StoreSchema, shard: int, digest: str) -> list[Damage]:
    """The faults of one shard, over all arrays; `digest` identifies the samples that it must hold."""
    found = []
    ids: dict[str, npt.NDArray[np.int64]] = {}
    rows = schema.shard_slice(shard)
    whole = range(rows.start, rows.stop)
    for name, spec in schema.arrays().items():
        try:
            if source.size(spec.file(shard)) > most_bytes(spec):  # a sparse file of any size costs its maker nothing
                found.append(Damage(shard, name, whole, "the file is larger than a shard can be"))
                continue
            data = source.read(spec.file(shard))
        except FileNotFoundError:
            found.append(Damage(shard, name, whole, "the file is missing"))
            continue
        except UserError:
            found.append(Damage(shard, name, whole, "it is no longer a file"))
            continue
        if not data:
            found.append(Damage(shard, name, whole, "the file is empty"))
            continue
        values, broken = decode_shard(spec, schema.codec, data, len(whole))
        found += [Damage(shard, name, whole[chunk.rows.start : chunk.rows.stop], chunk.problem) for chunk in broken]
        if values is not None and len(bad := spec.bad_rows(values)):
            found.append(Damage(shard, name, whole[bad[0] : bad[-1] + 1], f"NaN or infinity in {len(bad)} of them"))
        if name in ("sample_id", "replica") and values is not None:
            ids[name] = values
    if len(ids) == 2 and samples_digest(ids["sample_id"], ids["replica"]) != digest:
        found.append(Damage(shard, "sample_id", whole, "it holds other samples than it should"))
    return found
