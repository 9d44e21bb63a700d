"""Processes that are killed while they write a store, and what kills or slows them.

They are started by `spawn_clean`, from a server that has imported what they need and nothing has run in.
"""

import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from unittest import mock

import numpy as np

from ocd_core.store import StoreSchema, writer
from ocd_core.store.local import LocalWriter
from tests.support.repository import REPO
from tests.support.stores import complete, make_schema, make_values, open_writer, shard_of


def spawn_clean(target: Callable[..., None], *args: object) -> ForkServerProcess:
    """Call a function of a module, which the server imports when it starts, in a new process."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([target.__module__])
    with mock.patch.dict(os.environ, PYTHONPATH=str(REPO)):
        process = context.Process(target=target, args=args)
        process.start()
    return process


def case() -> tuple[StoreSchema, dict[str, np.ndarray]]:
    """Five shards; a row of Δ is larger than a file's buffer, so that half a file is half a file."""
    schema = make_schema(rows=18, shard_rows=4, out_features=48, in_features=50, layer_input=(50,))
    return schema, make_values(schema)


def die(*_args, **_kwargs):
    os.kill(os.getpid(), signal.SIGKILL)


def counted(real, when, die_after=False):
    """`real`, but the process dies in the call for which `when(number, *args)` holds."""
    calls = 0

    def call(*args, **kwargs):
        nonlocal calls
        calls += 1
        fatal = when(calls, *args)
        if fatal and not die_after:
            die()
        result = real(*args, **kwargs)
        if fatal:
            die()
        return result

    return call


def half_a_file(real, number):
    calls = 0

    def call(*args):
        nonlocal calls
        calls += 1
        pieces = real(*args)
        yield next(pieces)
        if calls == number:
            die()
        yield from pieces

    return call


def is_group(path: Path) -> bool:
    return path.name == "zarr.json" and (path.parent / "sample_id").is_dir()


@contextmanager
def slow_shards(seconds: float) -> Iterator[None]:
    """Each piece of a shard takes so long, so that a kill from outside falls anywhere in the writing."""
    real = writer.encode_shard

    def slow(*args):
        for piece in real(*args):
            time.sleep(seconds)
            yield piece

    with mock.patch.object(writer, "encode_shard", slow):
        yield


# Each patches something in the process so that it dies at one moment. A shard has ten files.
PHASES = {
    "before the first shard": lambda: mock.patch.object(LocalWriter, "write", die),
    "in the middle of a file": lambda: mock.patch.object(writer, "encode_shard", half_a_file(writer.encode_shard, 11)),
    "before a file appears": lambda: mock.patch.object(
        Path, "replace", counted(Path.replace, lambda n, _s, target: target.name == "c.1.0.0")
    ),
    "before sample_id": lambda: mock.patch.object(
        Path, "replace", counted(Path.replace, lambda n, _s, target: target == target.parent.parent / "sample_id/c.1")
    ),
    "between shards": lambda: mock.patch.object(
        LocalWriter, "write", counted(LocalWriter.write, lambda n, *_: n == 2, die_after=True)
    ),
    "while consolidating": lambda: mock.patch.object(
        Path, "replace", counted(Path.replace, lambda n, _s, target: is_group(target))
    ),
    "before the rename": lambda: mock.patch.object(Path, "rename", die),
    "after the rename": lambda: mock.patch.object(
        Path, "rename", counted(Path.rename, lambda n, *_: n == 1, die_after=True)
    ),
}


def write_and_die(phase: str, dest: Path, fingerprint: str = "f00d") -> None:
    with PHASES[phase]():
        complete(dest, *case(), fingerprint=fingerprint)


def write_slowly(dest: Path) -> None:
    with slow_shards(0.002):
        complete(dest, *case())


def hold(dest: Path, ready, done) -> None:
    """Write one shard and keep the store to itself until told otherwise."""
    schema, values = case()
    with open_writer(dest, schema, values) as held:
        held.write(0, shard_of(schema, values, 0))
        ready.set()
        done.wait()
