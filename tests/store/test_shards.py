"""Shard files against zarr's own, both ways."""

import math
import tracemalloc

import google_crc32c
import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from numcodecs import zstd
from zarr.storage import MemoryStore

from ocd_core.store.metadata import compressors
from ocd_core.store.schema import ArraySpec
from ocd_core.store.shards import decode_chunks, decode_shard, encode_shard


@settings(max_examples=40)
@given(
    chunk_rows=st.integers(1, 4),
    chunks=st.integers(1, 4),
    missing_rows=st.integers(0, 6),
    shape=st.sampled_from([(), (3,), (2, 3), (64, 65)]),
    dtype=st.sampled_from(["float32", "float64", "int64", "uint8"]),
    codec=st.sampled_from(["none", "lz4", "zstd"]),
    sparse=st.booleans(),
)
def test_same_bytes_as_zarr_and_read_back(chunk_rows, chunks, missing_rows, shape, dtype, codec, sparse):
    """The last shard of an array of several, perhaps not full, perhaps lacking whole chunks."""
    shard_rows = chunk_rows * chunks
    rows = max(1, shard_rows - missing_rows)
    kind = np.dtype(dtype)
    fill = math.nan if kind.kind == "f" else 7
    spec = ArraySpec(
        "a",
        kind,
        (shard_rows + rows, *shape),
        ("sample", *(f"d{i}" for i in range(len(shape)))),
        (chunk_rows, *shape),
        (shard_rows, *shape),
        fill,
        {},
    )
    rng = np.random.default_rng(0)
    values = (rng.standard_normal((rows, *shape)) * 100).astype(dtype)
    if sparse:
        values[:, ...] = values * (rng.random(values.shape) < 0.3)
        values[0] = fill

    files = {}
    array = zarr.create_array(
        MemoryStore(files),
        name="a",
        shape=spec.shape,
        dtype=kind,
        chunks=spec.chunk,
        shards=spec.shard,
        filters=None,
        compressors=compressors(codec, kind.itemsize),
        fill_value=fill,
        chunk_key_encoding={"name": "default", "separator": "."},
        config={"write_empty_chunks": True},
    )
    array[shard_rows:] = values
    data = b"".join(bytes(piece) for piece in encode_shard(spec, codec, values))
    assert data == files[spec.file(1)].to_bytes()

    found, broken = decode_shard(spec, codec, data, rows)
    assert broken == []
    assert found.dtype == kind
    np.testing.assert_array_equal(found, values)


SPEC = ArraySpec("a", np.dtype("f4"), (8, 3), ("sample", "x"), (2, 3), (8, 3), math.nan, {})


@pytest.mark.parametrize("codec", ["none", "lz4", "zstd"])
def test_every_flipped_bit_is_found(codec):
    data = b"".join(bytes(p) for p in encode_shard(SPEC, codec, np.arange(24, dtype="f4").reshape(8, 3)))
    for position in range(len(data) * 8):
        flipped = bytearray(data)
        flipped[position // 8] ^= 1 << position % 8
        assert decode_shard(SPEC, codec, bytes(flipped), 8)[0] is None


@pytest.mark.parametrize("codec", ["none", "lz4", "zstd"])
def test_every_truncation_is_found(codec):
    data = b"".join(bytes(p) for p in encode_shard(SPEC, codec, np.arange(24, dtype="f4").reshape(8, 3)))
    for length in range(len(data)):
        assert decode_shard(SPEC, codec, data[:length], 8)[0] is None
    assert decode_shard(SPEC, codec, data + b"x", 8)[0] is None


def test_a_chunk_of_another_size_is_found():
    """Valid checksums over content that does not fit."""
    other = ArraySpec("a", np.dtype("f4"), (8, 4), ("sample", "x"), (2, 4), (8, 4), math.nan, {})
    data = b"".join(bytes(p) for p in encode_shard(other, "lz4", np.zeros((8, 4), "f4")))
    values, broken = decode_shard(SPEC, "lz4", data, 8)
    assert values is None
    assert [c.rows for c in broken] == [range(0, 2), range(2, 4), range(4, 6), range(6, 8)]
    assert "does not decode" in broken[0].problem


def part_of(data: bytes):
    """How a reader gets a part of a file, and the parts that it asked for."""
    asked = []

    def read(start: int, end: int | None) -> bytes:
        asked.append((start, end))
        return data[start:end]

    return read, asked


@given(st.integers(1, 4), st.sampled_from(["none", "lz4", "zstd"]), st.sets(st.integers(0, 3), min_size=1))
def test_some_chunks_are_those_of_the_whole_and_nothing_else_is_read(width, codec, numbers):
    spec = ArraySpec("a", np.dtype("f4"), (8, width), ("sample", "x"), (2, width), (8, width), math.nan, {})
    values = np.random.default_rng(width).normal(size=(8, width)).astype("f4")
    data = b"".join(bytes(p) for p in encode_shard(spec, codec, values))
    read, asked = part_of(data)
    found = decode_chunks(spec, codec, sorted(numbers), read)
    assert set(found) == numbers
    for number, chunk in found.items():
        np.testing.assert_array_equal(chunk, values[2 * number : 2 * number + 2])
    assert len(asked) == 1 + len(numbers)
    assert sum(end - start for start, end in asked[1:]) <= len(data) * len(numbers) // 4


@pytest.mark.parametrize("codec", ["none", "lz4", "zstd"])
def test_damage_of_some_chunks_is_found(codec):
    data = b"".join(bytes(p) for p in encode_shard(SPEC, codec, np.arange(24, dtype="f4").reshape(8, 3)))
    for position in range(len(data)):
        flipped = bytearray(data)
        flipped[position] ^= 1
        with pytest.raises(ValueError, match=r"checksum|decode|larger|absent"):
            decode_chunks(SPEC, codec, range(4), part_of(bytes(flipped))[0])
    for length in range(len(data)):
        with pytest.raises(ValueError, match="checksum"):
            decode_chunks(SPEC, codec, range(4), part_of(data[:length])[0])


def test_a_chunk_that_unpacks_to_more_takes_no_more_memory():
    """64 MB of zeros in some 2 kB, with a right checksum, in the place of 24 bytes."""
    huge = bytes(zstd.Zstd(1).encode(np.zeros(2**26, "u1")))
    assert len(huge) < 2**14
    chunk = huge + google_crc32c.value(huge).to_bytes(4, "little")
    index = np.array([[0, len(chunk)]] * 4, "<u8").tobytes()
    data = chunk + index + google_crc32c.value(index).to_bytes(4, "little")
    tracemalloc.start()
    with pytest.raises(ValueError, match="does not decode"):
        decode_chunks(SPEC, "zstd", [0], part_of(data)[0])
    assert tracemalloc.get_traced_memory()[1] < 2**20
    tracemalloc.stop()
    index = np.array([[0, 2**40]] * 4, "<u8").tobytes()
    data = chunk + index + google_crc32c.value(index).to_bytes(4, "little")
    with pytest.raises(ValueError, match="larger than what it should hold"):
        decode_chunks(SPEC, "zstd", [0], part_of(data)[0])
