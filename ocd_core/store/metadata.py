"""A store's zarr.json files: the same bytes for the same schema and attributes.

They are made here, not by zarr's own writers, because the group's file must come last (it marks the store as complete)
and because its checksum covers every attribute.
"""

import hashlib
import json
from collections.abc import Mapping
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import zarr
from zarr.abc.codec import BytesBytesCodec
from zarr.codecs import BloscCodec, Crc32cCodec, ZstdCodec
from zarr.core.buffer import Buffer
from zarr.storage import MemoryStore

from ocd_core.files import utf8
from ocd_core.store.schema import FORMAT, SCHEMA_VERSION, Codec, StoreSchema

ZARR_JSON = "zarr.json"
RESERVED = ("format", "schema_version", "schema", "fingerprint", "coordinates", "shard_samples", "metadata_sha256")


def compressors(codec: Codec, itemsize: int) -> list[BytesBytesCodec]:
    """The codecs of a chunk, for zarr; the checksum comes last, otherwise flipped bits decode silently."""
    known: dict[Codec, list[BytesBytesCodec]] = {
        "none": [],
        "lz4": [BloscCodec(cname="lz4", clevel=1, shuffle="noshuffle", typesize=itemsize)],
        "zstd": [ZstdCodec(level=1)],
    }
    return [*known[codec], Crc32cCodec()]


@cache
def array_metadata(schema: StoreSchema) -> Mapping[str, bytes]:
    """The zarr.json of every array, by key."""
    files: dict[str, Buffer] = {}
    for spec in schema.arrays().values():
        zarr.create_array(
            MemoryStore(files),
            name=spec.name,
            shape=spec.shape,
            dtype=spec.dtype,
            chunks=spec.chunk,
            shards=spec.shard,
            filters=None,
            compressors=compressors(schema.codec, spec.dtype.itemsize),
            fill_value=spec.fill,
            attributes=dict(spec.attributes),
            chunk_key_encoding={"name": "default", "separator": "."},  # one folder per array
            dimension_names=spec.dims,
        )
    keys = [f"{name}/{ZARR_JSON}" for name in schema.arrays()]
    return {key: _dump(json.loads(files[key].to_bytes())) for key in keys}


def samples_digest(sample_id: npt.NDArray[np.int64], replica: npt.NDArray[np.int64]) -> str:
    """A 64-bit hash of the samples that a shard holds."""
    both = np.stack([sample_id, replica]).astype("<i8")
    return hashlib.sha256(both.tobytes()).hexdigest()[:16]


def group_attributes(
    schema: StoreSchema,
    attributes: dict[str, Any],
    sample_id: npt.NDArray[np.int64],
    replica: npt.NDArray[np.int64],
    fingerprint: str,
) -> dict[str, Any]:
    """The caller's attributes and those of the store itself."""
    clash = set(attributes) & set(RESERVED)
    assert not clash, f"attributes {sorted(clash)} are the store's own"
    ranges = [schema.shard_slice(shard) for shard in range(schema.shard_count)]
    return {
        **attributes,
        "format": FORMAT,
        "schema_version": SCHEMA_VERSION,
        "schema": schema.to_json(),
        "fingerprint": fingerprint,
        "coordinates": "sample_id target",
        "shard_samples": [samples_digest(sample_id[rows], replica[rows]) for rows in ranges],
    }


def group_metadata(attributes: dict[str, Any], arrays: Mapping[str, bytes]) -> bytes:
    """The group's zarr.json with those of the arrays consolidated in it, and a checksum of everything."""
    node = {
        "zarr_format": 3,
        "node_type": "group",
        "attributes": attributes,
        "consolidated_metadata": {
            "kind": "inline",
            "must_understand": False,
            "metadata": {key.removesuffix(f"/{ZARR_JSON}"): json.loads(data) for key, data in arrays.items()},
        },
    }
    digest = metadata_digest(node)
    node["attributes"] = {**attributes, "metadata_sha256": digest}
    return _dump(node)


def metadata_digest(node: dict[str, Any]) -> str:
    """The checksum of a group's zarr.json without the checksum itself."""
    attributes = {k: v for k, v in node["attributes"].items() if k != "metadata_sha256"}
    text = json.dumps({**node, "attributes": attributes}, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def _dump(node: Any) -> bytes:
    return utf8(json.dumps(node, indent=1, allow_nan=False, ensure_ascii=False))
