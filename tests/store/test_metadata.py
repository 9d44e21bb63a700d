"""The zarr.json files that are made here are those that zarr would make, and none can change unseen."""

import json
import os

import numpy as np
import pytest
import zarr
from zarr.storage import MemoryStore

from ocd_core.store.metadata import (
    RESERVED,
    array_metadata,
    group_attributes,
    group_metadata,
    metadata_digest,
    samples_digest,
)
from tests.support.stores import ATTRIBUTES, make_schema, make_values

SCHEMA = make_schema()
VALUES = make_values(SCHEMA)


def attributes(**more):
    ids = VALUES["sample_id"], VALUES["replica"]
    return group_attributes(SCHEMA, {**ATTRIBUTES, **more}, *ids, "f00d")


def group_bytes(**more) -> bytes:
    return group_metadata(attributes(**more), array_metadata(SCHEMA))


def test_zarr_reads_the_group_with_its_arrays(tmp_path):
    (tmp_path / "zarr.json").write_bytes(group_bytes())
    for key, data in array_metadata(SCHEMA).items():
        (tmp_path / key).parent.mkdir()
        (tmp_path / key).write_bytes(data)
    group = zarr.open_group(tmp_path, mode="r", use_consolidated=True)
    assert set(group.array_keys()) == set(SCHEMA.arrays())
    for name, spec in SCHEMA.arrays().items():
        array = group[name]
        assert (array.shape, array.dtype, array.chunks, array.shards) == (
            spec.shape,
            spec.dtype,
            spec.chunk,
            spec.shard,
        )
        assert array.metadata.dimension_names == spec.dims
        np.testing.assert_equal(array.fill_value, spec.fill)
    assert group.attrs["layer"] == ATTRIBUTES["layer"]


def test_an_arrays_metadata_is_what_zarr_writes():
    spec = SCHEMA.arrays()["delta"]
    node = json.loads(array_metadata(SCHEMA)["delta/zarr.json"])
    files = {}
    group = zarr.open_group(MemoryStore(files), mode="w")
    # again through zarr's own reader and writer
    array = group.create_array("delta", shape=spec.shape, dtype=spec.dtype, chunks=spec.chunk, shards=spec.shard)
    theirs = json.loads(files["delta/zarr.json"].to_bytes())
    assert array.shape == spec.shape
    for name in ("zarr_format", "node_type", "shape", "data_type", "chunk_grid"):
        assert node[name] == theirs[name]
    inner = node["codecs"][0]["configuration"]["codecs"]
    assert inner[-1]["name"] == "crc32c", "else flipped bits decode silently"


def test_the_same_bytes_every_time():
    assert group_bytes() == group_bytes()
    assert group_bytes(note="a") != group_bytes()


def test_a_name_that_is_no_utf8_comes_back():
    name = os.fsdecode(b"caf\xe9")
    node = json.loads(group_bytes(note=name))
    assert node["attributes"]["note"] == name
    assert metadata_digest(node) == node["attributes"]["metadata_sha256"]


def test_the_checksum_covers_every_value():
    node = json.loads(group_bytes())
    digest = node["attributes"]["metadata_sha256"]
    assert metadata_digest(node) == digest
    node["attributes"]["config"]["overfit"]["lr"] = 0.02
    assert metadata_digest(node) != digest
    node = json.loads(group_bytes())
    node["consolidated_metadata"]["metadata"]["delta"]["shape"][0] += 1
    assert metadata_digest(node) != digest


def test_the_order_of_keys_is_of_no_account_to_the_checksum():
    node = json.loads(group_bytes())
    turned = dict(reversed(node.items()))
    assert metadata_digest(turned) == metadata_digest(node)


@pytest.mark.parametrize("name", RESERVED)
def test_the_stores_own_attributes_cannot_be_given(name):
    with pytest.raises(AssertionError, match=name):
        attributes(**{name: 1})


def test_a_shards_samples_are_told_apart():
    ids, replicas = np.arange(4), np.zeros(4, np.int64)
    found = samples_digest(ids, replicas)
    assert found == samples_digest(ids.copy(), replicas.copy())
    assert found != samples_digest(ids[::-1].copy(), replicas)
    assert found != samples_digest(replicas, ids)
    assert found != samples_digest(ids[:3], replicas[:3])
