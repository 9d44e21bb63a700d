"""The overfit stage in a process that is killed: by itself at a fixed moment, or slowed down and from outside."""

import random
import signal
import time
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path
from unittest import mock

from ocd_core.overfit.rows import RowBuilder
from ocd_core.store import writer
from ocd_core.store.local import LocalWriter
from tests.faults.support import SHARDS, overfit, store_of, work_of
from tests.support.faulty_stores import counted, die, half_a_file, is_group, slow_shards, spawn_clean


def is_third(number: int, *_args: object) -> bool:
    return number == 3


# phase -> what kills the process, and the shards that are finished by then. A shard has ten files.
PHASES = {
    "before the first shard": (lambda: mock.patch.object(LocalWriter, "write", die), 0),
    "while computing a shard": (
        lambda: mock.patch.object(RowBuilder, "fill", counted(RowBuilder.fill, lambda n, *_: n == 4)),
        None,
    ),
    "in mid-shard": (lambda: mock.patch.object(writer, "encode_shard", half_a_file(writer.encode_shard, 25)), 2),
    "between shards": (
        lambda: mock.patch.object(LocalWriter, "write", counted(LocalWriter.write, is_third, die_after=True)),
        3,
    ),
    "while consolidating": (
        lambda: mock.patch.object(Path, "replace", counted(Path.replace, lambda n, _s, target: is_group(target))),
        SHARDS,
    ),
    "before the rename": (lambda: mock.patch.object(Path, "rename", die), SHARDS),
    "after the rename": (
        lambda: mock.patch.object(Path, "rename", counted(Path.rename, lambda n, *_: n == 1, die_after=True)),
        SHARDS,
    ),
}


def die_in(phase: str, root: Path) -> None:
    with PHASES[phase][0]():
        overfit(root)


def slowly(root: Path) -> None:
    """The stage, stretched so that a kill falls anywhere in it."""
    with slow_shards(0.003):
        overfit(root)


def hold(root: Path, held, release) -> None:
    """The stage, which stops before its first shard until told to go on."""

    def wait(*_args: object) -> None:
        held.set()
        release.wait()

    with mock.patch.object(LocalWriter, "write", wait):
        overfit(root)


@dataclass(frozen=True)
class Lengths:
    """Seconds that `slowly` takes: all of it, and from the moment on that there is a work folder."""

    whole: float
    writing: float


def lengths_undisturbed(root: Path) -> Lengths:
    start = time.monotonic()
    process = spawn_clean(slowly, root)
    wait_for_work(root, process)
    begun = time.monotonic()
    process.join()
    assert process.exitcode == 0
    return Lengths(time.monotonic() - start, time.monotonic() - begun)


def wait_for_work(root: Path, process: BaseProcess) -> None:
    while process.is_alive() and work_of(root) is None:
        time.sleep(0.001)


def kill_once(root: Path, lengths: Lengths, rng: random.Random) -> bool:
    """Start `slowly` and kill it, one time in four at any moment, else while it writes; whether it was running."""
    process = spawn_clean(slowly, root)
    longest = lengths.whole
    if rng.random() < 0.75:
        wait_for_work(root, process)
        longest = lengths.writing
    process.join(rng.uniform(0, longest))
    process.kill()
    process.join()
    assert process.exitcode in (0, -signal.SIGKILL), process.exitcode
    assert process.exitcode or store_of(root).exists()
    return process.exitcode != 0
