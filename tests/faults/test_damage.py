"""Damage to a finished store, a full disk: what is said, and what a rerun of the stage does about it."""

import errno
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ocd_core.cli import app
from ocd_core.errors import UserError
from ocd_core.overfit.rows import RowBuilder
from tests.faults.support import (
    SHARDS,
    assert_undisturbed,
    copy_run,
    file_hashes,
    finished_shards,
    overfit,
    store_of,
    work_of,
)

SHARD = 2  # samples 16 to 23


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-7])


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def flipped(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 4
    path.write_bytes(data)


@pytest.mark.parametrize("damage", [truncated, emptied, Path.unlink, flipped], ids=lambda f: f.__name__)
@pytest.mark.parametrize("array", ["delta", "sample_id"])
def test_a_damaged_shard_is_named_and_alone_made_again(
    damage, array, finished: Path, undisturbed: dict[str, str], tmp_path: Path, monkeypatch
) -> None:
    root = copy_run(finished, tmp_path / "run")
    shard = next((store_of(root) / array).glob(f"c.{SHARD}*"))
    damage(shard)
    cached: Path | None = None
    if shard.exists():  # a damaged file may be a hard link into a cache, where others see it
        cached = tmp_path / "cached"
        os.link(shard, cached)
        content = cached.read_bytes()
    result = CliRunner().invoke(app, ["verify", str(store_of(root))])
    assert result.exit_code == 1
    assert array in result.stdout
    assert f"shard {SHARD}" in result.stdout
    assert "samples 16 to " in result.stdout  # the shard's first; a chunk may be a part of a shard
    before = finished_shards(store_of(root))
    computed = []
    real = RowBuilder.fill
    monkeypatch.setattr(RowBuilder, "fill", lambda self, rows, *a: (computed.append(rows), real(self, rows, *a))[1])
    overfit(root)
    assert computed == [slice(16, 24)]
    assert_undisturbed(root, undisturbed)
    after = finished_shards(store_of(root))
    assert {k for k in before if before[k] == after[k]} == set(range(SHARDS)) - {SHARD}
    if cached is not None:
        assert cached.read_bytes() == content
        assert cached.stat().st_nlink == 1
    assert CliRunner().invoke(app, ["verify", str(store_of(root))]).exit_code == 0


def test_a_sound_store_is_not_made_again(finished: Path, undisturbed: dict[str, str], tmp_path: Path, monkeypatch):
    root = copy_run(finished, tmp_path / "run")
    monkeypatch.setattr(RowBuilder, "fill", lambda *_: pytest.fail("computed"))
    before = finished_shards(store_of(root))
    overfit(root)
    assert finished_shards(store_of(root)) == before
    assert_undisturbed(root, undisturbed)


def check_full_disk(root: Path) -> None:
    with pytest.raises(UserError, match=r"no space left on the disk.*run the same command again"):
        overfit(root)
    assert not store_of(root).exists()
    assert not list(root.rglob("*.partial"))


def test_a_disk_that_is_full(ready: Path, undisturbed: dict[str, str], tmp_path: Path, monkeypatch) -> None:
    root = copy_run(ready, tmp_path / "run")
    real, written = Path.replace, []

    def full(self: Path, target: Path) -> Path:
        written.append(target)
        if len(written) > 25:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(target))
        return real(self, target)

    monkeypatch.setattr(Path, "replace", full)
    check_full_disk(root)
    monkeypatch.undo()
    kept = finished_shards(work_of(root))
    assert kept
    overfit(root)
    assert kept.items() <= finished_shards(store_of(root)).items()
    assert_undisturbed(root, undisturbed)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(folder)]
    if os.geteuid() or subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("a small disk cannot be mounted here")
    yield folder
    # lazily: a helper process of multiprocessing may have been started from there and outlive the test
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


def test_a_small_disk(ready: Path, undisturbed: dict[str, str], small_disk: Path) -> None:
    root = copy_run(ready, small_disk / "run")
    check_full_disk(root)
    kept = finished_shards(work_of(root))
    assert kept
    subprocess.run(["mount", "-o", "remount,size=64m", str(small_disk)], check=True)
    overfit(root)
    assert kept.items() <= finished_shards(store_of(root)).items()
    assert file_hashes(store_of(root).parent) == undisturbed
