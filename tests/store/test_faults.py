"""SIGKILL at fixed phases and at random moments, and two processes on one store."""

import multiprocessing
import random
import signal
import time
from pathlib import Path

import pytest

from ocd_core.errors import UserError
from ocd_core.store import OverfitStore, verify_store
from tests.support.faulty_stores import PHASES, case, hold, spawn_clean, write_and_die, write_slowly
from tests.support.stores import complete, file_hashes, make_values, open_writer


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory) -> dict[str, str]:
    dest = tmp_path_factory.mktemp("undisturbed") / "a.zarr"
    complete(dest, *case())
    return file_hashes(dest)


def killed(process) -> bool:
    process.join(60)
    return process.exitcode == -signal.SIGKILL


def assert_clean(dest: Path, expected: dict[str, str]) -> None:
    assert file_hashes(dest) == expected
    assert verify_store(dest) == []
    assert not list(dest.parent.rglob("*.partial"))
    assert list((dest.parent / ".work").iterdir()) == []


KEPT = {
    "before the first shard": [],
    "in the middle of a file": [0],
    "before a file appears": [0],
    "before sample_id": [0],
    "between shards": [0, 1],
    "while consolidating": [0, 1, 2, 3, 4],
    "before the rename": [0, 1, 2, 3, 4],
    "after the rename": [0, 1, 2, 3, 4],
}


@pytest.mark.parametrize("phase", PHASES)
def test_killed(tmp_path, undisturbed, phase):
    dest = tmp_path / "a.zarr"
    assert killed(spawn_clean(write_and_die, phase, dest))
    assert dest.exists() == (phase == "after the rename")
    if phase in ("in the middle of a file", "before a file appears", "before sample_id", "while consolidating"):
        assert len(list(tmp_path.rglob("*.partial"))) == 1
    missing = complete(dest, *case())
    assert sorted([*missing, *KEPT[phase]]) == [0, 1, 2, 3, 4]
    assert_clean(dest, undisturbed)


@pytest.mark.parametrize("phase", ["between shards", "while consolidating", "before the rename", "after the rename"])
def test_killed_while_replacing_another(tmp_path, undisturbed, phase):
    """The old store stays until the new one is whole."""
    dest = tmp_path / "a.zarr"
    schema, _ = case()
    complete(dest, schema, make_values(schema, seed=9), fingerprint="old")
    old = file_hashes(dest)
    assert killed(spawn_clean(write_and_die, phase, dest))
    if phase == "after the rename":  # the first of two, which puts the old one away
        assert not dest.exists()
    else:
        assert file_hashes(dest) == old
    missing = complete(dest, *case())
    assert sorted([*missing, *KEPT[phase]]) == [0, 1, 2, 3, 4]
    assert_clean(dest, undisturbed)


@pytest.mark.parametrize(
    ("phase", "left"),
    [
        ("before the rename", [1, 3]),  # from the store's place back to the work folder
        ("after the rename", [1, 3]),
        ("before the first shard", [1, 3]),
        ("in the middle of a file", [3]),
    ],
)
def test_killed_while_repairing(tmp_path, undisturbed, phase, left):
    """Of a damaged store everything sound is kept, wherever its repair is interrupted."""
    dest = tmp_path / "a.zarr"
    schema, values = case()
    complete(dest, schema, values)
    for shard in (1, 3):
        (dest / schema.arrays()["delta"].file(shard)).write_bytes(b"junk")
    kept = (dest / schema.arrays()["delta"].file(0)).stat().st_ino
    assert killed(spawn_clean(write_and_die, phase, dest))
    assert dest.exists() == (phase == "before the rename")
    assert complete(dest, schema, values) == left
    assert (dest / schema.arrays()["delta"].file(0)).stat().st_ino == kept
    assert_clean(dest, undisturbed)


def kill_at_random(dest: Path, kills: int, seed: int) -> int:
    """Kill writers of `case()` at random moments and finish; how many of them died."""
    rng = random.Random(seed)
    dead = 0
    for _ in range(kills):
        process = spawn_clean(write_slowly, dest)
        work = dest.parent / ".work"
        deadline = time.monotonic() + 60
        while not work.exists() and time.monotonic() < deadline:
            time.sleep(0.001)
        process.join(rng.uniform(0, 0.3))
        process.kill()
        dead += killed(process)
    complete(dest, *case())
    return dead


def test_killed_at_random_moments(tmp_path, undisturbed):
    dest = tmp_path / "a.zarr"
    assert kill_at_random(dest, kills=3, seed=0) >= 1
    assert_clean(dest, undisturbed)


def test_second_process_is_refused_until_the_first_ends(tmp_path):
    dest = tmp_path / "a.zarr"
    context = multiprocessing.get_context("forkserver")
    ready, done = context.Event(), context.Event()
    first = spawn_clean(hold, dest, ready, done)
    assert ready.wait(60)
    with pytest.raises(UserError, match=f"being written by process {first.pid} on"):
        open_writer(dest, *case())
    with pytest.raises(UserError, match="being written"):
        open_writer(dest, *case(), fingerprint="other")
    first.kill()
    first.join()
    assert complete(dest, *case()) == [1, 2, 3, 4]
    assert len(OverfitStore(dest)) == 18
