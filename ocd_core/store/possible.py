"""Whether a store's zarr.json can be that of a store: it may come from a stranger, and its checksum is no secret.

Everything that decides how much is read, and how it is decoded, is compared with the schema before anything is read.
"""

import math
from typing import Any, get_args

import numpy as np

from ocd_core.store.schema import ArraySpec, Codec, Layout, StoreSchema

MOST_SHARD_BYTES = 2**34  # uncompressed, of one array; a writer's shards hold tens of MB, or one sample
_MOST_BYTES = 2**62  # of one array
_MOST_AXES = 16
_TEXTS = ("task", "split", "layer", "base_sha256", "code_version", "fingerprint")
_COUNTS = ("rows", "out_features", "in_features", "steps", "shard_rows")
_SHAPES = ("layer_input", "layer_activation", "base_output", "target_shape")
# the codecs inside of a shard, by their names in zarr.json
_INNER = {"none": ["bytes", "crc32c"], "lz4": ["bytes", "blosc", "crc32c"], "zstd": ["bytes", "zstd", "crc32c"]}


def refuse_impossible(node: dict[str, Any]) -> None:
    """Raise unless a group's zarr.json describes a store that a writer of this package can have made.

    Raises:
        ValueError: it does not; the message says why.
    """
    attributes = node["attributes"]
    _need(node.get("zarr_format") == 3 and node.get("node_type") == "group", "it is not a zarr group of format 3")
    for name in _TEXTS:
        _need(isinstance(attributes.get(name, ""), str), f"its {name} is no text")
    for name in ("seed", "rank"):
        _need(_is_count(attributes.get(name, 0), 0), f"its {name} is no number")
    for name in ("config", "data"):
        _need(isinstance(attributes.get(name) or {}, dict), f"its {name} is no group of values")
    shared = (attributes.get("data") or {}).get("shared_rows") or {}
    _need(
        isinstance(shared, dict)
        and all(isinstance(pair, str) and pair.count("/") == 1 and _is_count(n, 0) for pair, n in shared.items()),
        "its data.shared_rows are no numbers of samples by pairs of splits",
    )
    schema = _schema(attributes.get("schema"))
    digests = attributes.get("shard_samples")
    _need(
        isinstance(digests, list)
        and len(digests) == schema.shard_count
        and all(isinstance(digest, str) for digest in digests),
        "it does not list the samples of each shard",
    )
    consolidated = node.get("consolidated_metadata")
    found = consolidated.get("metadata") if isinstance(consolidated, dict) else None
    arrays: dict[str, Any] = found if isinstance(found, dict) else {}
    specs = schema.arrays()
    _need(set(arrays) == set(specs), "its arrays are not those of its schema")
    for name, spec in specs.items():
        _need(_describes(arrays[name], spec, schema.codec), f"its array {name} is not that of its schema")


def _schema(values: Any) -> StoreSchema:
    _need(isinstance(values, dict), "it has no schema")
    _need(values.get("layout") in get_args(Layout) and values.get("codec") in get_args(Codec), "its layout is unknown")
    for name in _COUNTS:
        _need(_is_count(values.get(name), 1), f"its schema has no possible {name}")
    for name in _SHAPES:
        shape = values.get(name)
        _need(
            isinstance(shape, list) and len(shape) <= _MOST_AXES and all(_is_count(size, 0) for size in shape),
            f"its schema has no possible {name}",
        )
    kind = values.get("target_dtype")
    _need(
        isinstance(kind, str) and kind in {np.dtype(code).name for code in "bBhHiIlLqQefd"}, "its labels are no numbers"
    )
    schema = StoreSchema.from_json(values)
    for spec in schema.arrays().values():
        shard, whole = (math.prod(shape) * spec.dtype.itemsize for shape in (spec.shard, spec.shape))
        _need(shard <= MOST_SHARD_BYTES and whole <= _MOST_BYTES, f"its array {spec.name} is impossibly large")
    return schema


def _describes(found: Any, spec: ArraySpec, codec: Codec) -> bool:
    """Whether an array's zarr.json has the shape, the type, the chunks and the codecs of a spec."""
    try:
        (sharding,) = found["codecs"]
        inner = sharding["configuration"]
        return bool(
            found["node_type"] == "array"
            and found["shape"] == list(spec.shape)
            and found["data_type"] == spec.dtype.name
            and found["chunk_grid"] == {"name": "regular", "configuration": {"chunk_shape": list(spec.shard)}}
            and sharding["name"] == "sharding_indexed"
            and inner["chunk_shape"] == list(spec.chunk)
            and [step["name"] for step in inner["codecs"]] == _INNER[codec]
            and [step["name"] for step in inner["index_codecs"]] == ["bytes", "crc32c"]
            and not found.get("storage_transformers")
        )
    except (KeyError, TypeError, ValueError):
        return False


def _is_count(value: Any, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value < 2**62


def _need(holds: object, problem: str) -> None:
    if not holds:
        raise ValueError(problem)
