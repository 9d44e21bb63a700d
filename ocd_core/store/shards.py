"""A shard as a file: zarr's `sharding_indexed` format, byte for byte what zarr itself writes.

Shards are encoded here because zarr's general path takes several times as long for these simple shards (chunks along
one axis, each written once), and decoded here so that damage is found chunk by chunk in one pass.

The file holds the encoded chunks in order, then the index (offset and length of each, little-endian uint64), then the
CRC32C of the index. An encoded chunk ends with its own CRC32C. Chunks entirely beyond the end of the array are absent.
"""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from typing import Any, Protocol

import google_crc32c
import numpy as np
import numpy.typing as npt
from numcodecs import blosc, zstd

from ocd_core.files import is_shortage
from ocd_core.store.schema import ArraySpec, Codec

Bytes = npt.NDArray[np.uint8]

_ABSENT = 2**64 - 1
# how many bytes one byte of a file can decode to: above it, a file lies
_MOST_RATIO: dict[Codec, int] = {"none": 1, "lz4": 300, "zstd": 40_000}
_CRC = 4  # bytes

# Its own threads would make the order of blocks, and so the bytes, depend on chance
blosc.use_threads = False


class _Compressor(Protocol):
    def encode(self, buf: Any) -> Any: ...

    def decode(self, buf: Any, out: Any) -> Any: ...


@cache
def _compressor(codec: Codec, itemsize: int) -> _Compressor | None:
    """The numcodecs twin of `metadata.compressors`."""
    known: dict[Codec, _Compressor | None] = {
        "none": None,
        "lz4": blosc.Blosc("lz4", 1, blosc.NOSHUFFLE, typesize=itemsize),
        "zstd": zstd.Zstd(1),
    }
    return known[codec]


@dataclass(frozen=True)
class BrokenChunk:
    """Rows of a shard (counted from its start) that cannot be read, and the reason."""

    rows: range
    problem: str


def encode_shard(spec: ArraySpec, codec: Codec, values: npt.NDArray[Any]) -> Iterator[Any]:
    """The pieces of a shard's file; `values` are its rows, which may be fewer in the last shard."""
    compressor = _compressor(codec, spec.dtype.itemsize)
    index = np.full((spec.chunks_per_shard, 2), _ABSENT, "<u8")
    offset = 0
    stored = spec.dtype.newbyteorder("<")
    for number, start in enumerate(range(0, len(values), spec.chunk[0])):
        chunk = values[start : start + spec.chunk[0]]
        if len(chunk) < spec.chunk[0]:
            padded = np.full(spec.chunk, spec.fill, stored)
            padded[: len(chunk)] = chunk
            chunk = padded
        raw = np.ascontiguousarray(chunk, stored).reshape(-1).view("u1")
        data = raw if compressor is None else compressor.encode(raw)
        yield data
        yield _crc(data)
        index[number] = offset, len(data) + _CRC
        offset += len(data) + _CRC
    tail = index.tobytes()
    yield tail
    yield _crc(tail)


def most_bytes(spec: ArraySpec) -> int:
    """The size in bytes that no file of a shard exceeds, however badly its chunks compress."""
    return spec.chunks_per_shard * _most_of_chunk(spec) + _index_bytes(spec)


def _most_of_chunk(spec: ArraySpec) -> int:
    return 2 * math.prod(spec.chunk) * spec.dtype.itemsize + 2**16


def decode_shard(
    spec: ArraySpec, codec: Codec, data: bytes, rows: int
) -> tuple[npt.NDArray[Any] | None, list[BrokenChunk]]:
    """The first `rows` rows of a shard's file, or None and the chunks that cannot be read."""
    view = np.frombuffer(data, np.uint8)
    try:
        index = _read_index(spec, data[-_index_bytes(spec) :])
    except _ChunkError as error:
        return None, [BrokenChunk(range(rows), str(error))]
    chunk_bytes = math.prod(spec.chunk) * spec.dtype.itemsize
    if -(-rows // spec.chunk[0]) * chunk_bytes > _MOST_RATIO[codec] * len(view):
        return None, [BrokenChunk(range(rows), "the file is too small for what it should hold")]
    values = np.empty((rows, *spec.shape[1:]), spec.dtype)
    broken = []
    for number, start in enumerate(range(0, rows, spec.chunk[0])):
        stop = min(rows, start + spec.chunk[0])
        try:
            place = _place(index, number)
            values[start:stop] = _decode_chunk(spec, codec, view[place])[: stop - start]
        except _ChunkError as error:
            broken.append(BrokenChunk(range(start, stop), str(error)))
    return (None if broken else values), broken


def decode_chunks(
    spec: ArraySpec, codec: Codec, numbers: Iterable[int], read: Callable[[int, int | None], bytes]
) -> dict[int, npt.NDArray[Any]]:
    """Some chunks of a shard's file, by their numbers in it, of which no more than these and the index is read.

    Args:
        read: the file's bytes from start to end; a negative start counts from the end, and None is the end.

    Raises:
        ValueError: one cannot be read.
    """
    most = _most_of_chunk(spec)
    found = {}
    try:
        index = _read_index(spec, read(-_index_bytes(spec), None))
        for number in numbers:
            place = _place(index, number)
            if place.stop - place.start > most:
                raise _ChunkError("a chunk is larger than what it should hold")
            data = read(place.start, place.stop)
            found[number] = _decode_chunk(spec, codec, np.frombuffer(data, np.uint8))
    except _ChunkError as error:
        raise ValueError(str(error)) from error
    return found


class _ChunkError(Exception):
    """A chunk, or the index of all, that cannot be read."""


def _index_bytes(spec: ArraySpec) -> int:
    return spec.chunks_per_shard * 16 + _CRC


def _read_index(spec: ArraySpec, tail: bytes) -> npt.NDArray[np.uint64]:
    """Offset and length of each chunk, from the end of the file."""
    if len(tail) != _index_bytes(spec) or tail[-_CRC:] != _crc(tail[:-_CRC]):
        raise _ChunkError("its index does not match its checksum: truncated or overwritten")
    return np.frombuffer(tail, "<u8", 2 * spec.chunks_per_shard).reshape(-1, 2)


def _place(index: npt.NDArray[np.uint64], number: int) -> slice:
    """Where a chunk is in the file."""
    offset, length = (int(v) for v in index[number])
    if offset == _ABSENT:
        raise _ChunkError("a chunk is absent")
    return slice(offset, offset + length)


def _decode_chunk(spec: ArraySpec, codec: Codec, encoded: Bytes) -> npt.NDArray[Any]:
    if len(encoded) < _CRC or encoded[-_CRC:].tobytes() != _crc(encoded[:-_CRC]):
        raise _ChunkError("its content does not match its checksum")
    compressor = _compressor(codec, spec.dtype.itemsize)
    try:
        raw: Any = encoded[:-_CRC]
        if compressor is not None:  # into a buffer of the chunk's size: what a file says of its size may be a lie
            raw = np.empty(math.prod(spec.chunk) * spec.dtype.itemsize, np.uint8)
            compressor.decode(encoded[:-_CRC], raw)
        return np.frombuffer(raw, spec.dtype.newbyteorder("<")).reshape(spec.chunk)
    except (ValueError, RuntimeError) as error:
        if is_shortage(error):
            raise
        raise _ChunkError(f"it does not decode ({error})") from error


def _crc(data: bytes | Bytes) -> bytes:
    value: int = google_crc32c.value(data)
    return value.to_bytes(_CRC, "little")
