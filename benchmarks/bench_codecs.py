"""Codecs for Δ: size and speed on real Δ (LeNet5, fc1, SGD and Adam), one thread, 13 rows (0.5 MiB) per chunk."""

import statistics
import tempfile
from collections.abc import Callable
from pathlib import Path

import google_crc32c
import numpy as np
import torch
from numcodecs import blosc, zstd

from benchmarks import mnist
from benchmarks.bench_overfit import params
from benchmarks.machine import timed
from ocd_core.overfit.steps import overfit
from ocd_core.report.markdown import markdown_table

ROWS, CHUNK, TURNS = 1664, 13, 7
NO, BYTE, BIT = blosc.NOSHUFFLE, blosc.SHUFFLE, blosc.BITSHUFFLE
CODECS = {
    "none": None,
    "lz4 (the store's `lz4`)": blosc.Blosc("lz4", 1, NO, typesize=4),
    "lz4, bytes shuffled": blosc.Blosc("lz4", 1, BYTE, typesize=4),
    "lz4, bits shuffled": blosc.Blosc("lz4", 1, BIT, typesize=4),
    "zstd 1 (the store's `zstd`)": zstd.Zstd(1),
    "zstd 1, bytes shuffled": blosc.Blosc("zstd", 1, BYTE, typesize=4),
    "zstd 3, bytes shuffled": blosc.Blosc("zstd", 3, BYTE, typesize=4),
}


def deltas(folder: Path, optimizer: str) -> np.ndarray:
    task, model, split = mnist.load(folder, ROWS)
    batch = split.batch(torch.arange(ROWS))
    cut = model.prefix(batch.inputs)
    found = overfit(model, lambda _step: (cut, batch.target), task.loss, params(optimizer, "dense"))
    assert found.delta_NOI is not None
    return found.delta_NOI.numpy()


def rate(run: Callable[[], object], size: int) -> str:
    """GB per second of processor time, the median of TURNS."""
    return f"{size / statistics.median(timed(run)[1] for _ in range(TURNS)) / 1e9:.2f}"


def main() -> None:
    blosc.use_threads = False
    with tempfile.TemporaryDirectory(prefix="ocd-bench-") as name:
        mnist.prepare(Path(name))
        for optimizer in ("sgd", "adam"):
            delta = deltas(Path(name), optimizer)
            chunks = [np.ascontiguousarray(delta[i : i + CHUNK]) for i in range(0, ROWS, CHUNK)]
            print(f"### {optimizer}: {(delta == 0).mean():.0%} of the elements of Δ are zero\n")
            rows = []
            for label, codec in CODECS.items():
                if codec is None:
                    encode, decode = (lambda c: c.reshape(-1).view("u1")), (lambda b: b)
                else:
                    encode, decode = codec.encode, codec.decode
                encoded = [encode(c) for c in chunks]
                assert all(bytes(decode(e)) == c.tobytes() for e, c in zip(encoded, chunks, strict=True)), label
                write = rate(lambda e=encode, cs=chunks: [google_crc32c.value(bytes(e(c))) for c in cs], delta.nbytes)
                read = rate(lambda d=decode, b=encoded: [np.frombuffer(d(x), "f4").copy() for x in b], delta.nbytes)
                rows.append([label, f"{sum(len(e) for e in encoded) / delta.nbytes:.3f}", write, read])
            print(markdown_table(["", "size", "encode and checksum, GB/s", "decode, GB/s"], rows) + "\n", flush=True)
