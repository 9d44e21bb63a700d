"""Stores written straight to a URL: in memory, and in S3 by several processes."""

from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from ocd_core.errors import UserError
from ocd_core.store import OverfitStore, verify_store
from ocd_core.store.remote import RemoteSink, RemoteWriter
from tests.faults.support import copy_run, overfit
from tests.support.stores import complete, content_of, file_hashes, make_schema, make_values, shard_of, whole_shard_of

SCHEMA = make_schema()
VALUES = make_values(SCHEMA)


@pytest.fixture
def url(tmp_path: Path) -> Iterator[str]:
    place = f"memory://{tmp_path.name}/a.zarr"
    yield place
    fsspec.filesystem("memory").store.clear()


def open_remote(url: str, fingerprint: str = "f00d") -> RemoteWriter:
    return RemoteWriter(url, content_of(SCHEMA, VALUES, fingerprint=fingerprint))


def write_missing(url: str, upto: int = 99) -> list[int]:
    with open_remote(url) as writer:
        missing = writer.missing()
        for shard in missing[:upto]:
            writer.write(shard, shard_of(SCHEMA, VALUES, shard))
        if upto >= len(missing):
            writer.finish()
    return missing


def download(url: str, dest: Path) -> dict[str, str]:
    """The files below a URL, path -> sha256."""
    fs, root = fsspec.core.url_to_fs(url)
    for path in fs.find(root):
        target = dest / path.removeprefix(root).lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(fs.cat_file(path))
    return file_hashes(dest)


def test_the_same_bytes_as_a_local_store(url: str, tmp_path: Path) -> None:
    assert write_missing(url) == [0, 1, 2]
    complete(tmp_path / "local.zarr", SCHEMA, VALUES)
    assert download(url, tmp_path / "copy") == file_hashes(tmp_path / "local.zarr")
    assert verify_store(url) == []
    assert write_missing(url) == []


def test_an_unfinished_store_is_none_and_goes_on(url: str, tmp_path: Path) -> None:
    write_missing(url, upto=2)
    with pytest.raises(UserError, match="not an overfit store"):
        OverfitStore(url)
    with pytest.raises(UserError, match="an unfinished store with other params"):
        open_remote(url, "other")
    assert write_missing(url) == [2]
    complete(tmp_path / "local.zarr", SCHEMA, VALUES)
    assert download(url, tmp_path / "copy") == file_hashes(tmp_path / "local.zarr")


@pytest.mark.parametrize("key", ["delta/c.1.0.0", "sample_id/c.1", "zarr.json", "delta/zarr.json"])
@pytest.mark.parametrize("how", ["flip", "remove"])
def test_damage_is_repaired(url: str, tmp_path: Path, key: str, how: str) -> None:
    write_missing(url)
    fs, root = fsspec.core.url_to_fs(url)
    data = bytearray(fs.cat_file(f"{root}/{key}"))
    fs.rm_file(f"{root}/{key}")
    if how == "flip":
        data[len(data) // 2] ^= 1
        fs.pipe_file(f"{root}/{key}", bytes(data))
    if key == "zarr.json":  # nothing says any more whose it is
        with pytest.raises(UserError, match=r"another store is at|is not empty"):
            open_remote(url)
        return
    assert write_missing(url) == ([] if key.endswith("zarr.json") else [1])
    complete(tmp_path / "local.zarr", SCHEMA, VALUES)
    assert download(url, tmp_path / "copy") == file_hashes(tmp_path / "local.zarr")


def test_nothing_of_others_is_replaced(url: str) -> None:
    write_missing(url)
    with pytest.raises(UserError, match="another store is at"):
        open_remote(url, "other")
    fs, root = fsspec.core.url_to_fs(url)
    fs.pipe_file(f"{root}2/thesis.txt", b"years of work")
    with pytest.raises(UserError, match="is not empty"):
        open_remote(f"{url}2")


def test_a_sink_writes_for_others(url: str) -> None:
    with open_remote(url) as writer:
        sink = writer.sink()
        assert isinstance(sink, RemoteSink)
        sink.write(1, whole_shard_of(SCHEMA, VALUES, 1))
        assert writer.accept(1) == []
        assert {d.problem for d in writer.accept(2)} == {"the file is missing"}
        assert writer.missing() == [0, 2]
        with pytest.raises(AssertionError, match=r"\[0, 2\]"):
            writer.finish()


def test_the_stage_writes_to_s3_and_goes_on_in_another_process(
    s3: str,
    ready: Path,
    undisturbed: dict[str, str],
    tmp_path: Path,
    monkeypatch,
) -> None:
    root = copy_run(ready, tmp_path / "run")
    real = RemoteSink.write

    def lost(self: RemoteSink, shard: int, arrays: dict) -> None:
        if shard == 4:
            raise ConnectionError("the network is gone")
        real(self, shard, arrays)

    monkeypatch.setattr(RemoteSink, "write", lost)
    with pytest.raises(ConnectionError):
        overfit(root, store=f"{s3}/run")
    monkeypatch.undo()
    with pytest.raises(UserError, match="not an overfit store"):
        OverfitStore(f"{s3}/run/train.zarr")
    written = s3_times(f"{s3}/run/train.zarr/sample_id")
    assert len(written) == 4
    overfit(root, executor="process", workers=1, store=f"{s3}/run")
    assert written.items() <= s3_times(f"{s3}/run/train.zarr/sample_id").items()
    assert download(f"{s3}/run", tmp_path / "copy") == undisturbed
    assert not (root / "data" / "toy" / "seed0" / "rank1").exists()


def s3_times(url: str) -> dict[str, object]:
    fs, root = fsspec.core.url_to_fs(url)
    fs.invalidate_cache()
    return {path: info["LastModified"] for path, info in fs.find(root, detail=True).items() if "/c." in path}


def test_a_path_is_no_url(ready: Path) -> None:
    with pytest.raises(UserError, match="give a URL"):
        overfit(ready, store="somewhere")
