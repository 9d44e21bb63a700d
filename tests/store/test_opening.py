"""One way to write a store, wherever it is."""

import pickle
from pathlib import Path

import fsspec
import pytest

from ocd_core.store import open_writer, verify_store
from tests.support.stores import content_of, file_hashes, make_schema, make_values, shard_of, whole_shard_of

SCHEMA = make_schema()
VALUES = make_values(SCHEMA)


@pytest.fixture(params=["path", "path as text", "URL"])
def dest(request, tmp_path):
    yield {
        "path": tmp_path / "a.zarr",
        "path as text": str(tmp_path / "a.zarr"),
        "URL": f"memory://{tmp_path.name}/a.zarr",
    }[request.param]
    fsspec.filesystem("memory").store.clear()


def open_at(dest, tmp_path):
    return open_writer(dest, content_of(SCHEMA, VALUES), tmp_path / ".work")


def hashes(dest, folder):
    if "://" not in str(dest):
        return file_hashes(Path(dest))
    fs, root = fsspec.core.url_to_fs(dest)
    fs.get(root, str(folder), recursive=True)
    return file_hashes(folder)


def test_any_place_gets_the_same_store(dest, tmp_path):
    with open_at(dest, tmp_path) as writer:
        assert writer.missing() == [0, 1, 2]
        writer.write(1, shard_of(SCHEMA, VALUES, 1))
    with open_at(dest, tmp_path) as writer:
        assert writer.missing() == [0, 2]
        sink = pickle.loads(pickle.dumps(writer.sink()))
        assert sink == writer.sink()
        assert sink.schema == SCHEMA
        keys = sink.write(0, whole_shard_of(SCHEMA, VALUES, 0))
        assert keys == [spec.file(0) for spec in SCHEMA.arrays().values()]
        assert writer.accept(0) == []
        assert writer.accept(2) != []
        writer.write(2, shard_of(SCHEMA, VALUES, 2))
        writer.finish()
    assert verify_store(dest) == []
    with open_at(tmp_path / "reference.zarr", tmp_path) as writer:
        for shard in writer.missing():
            writer.write(shard, shard_of(SCHEMA, VALUES, shard))
        writer.finish()
    assert hashes(dest, tmp_path / "copy") == file_hashes(tmp_path / "reference.zarr")


def test_other_samples_than_announced_are_refused(dest, tmp_path):
    with open_at(dest, tmp_path) as writer:
        wrong = whole_shard_of(SCHEMA, VALUES, 1)
        with pytest.raises(AssertionError, match="sample_id is not what was announced"):
            writer.write(0, wrong)
        sink = writer.sink()
        sink.write(0, wrong)  # a sink does not know them; `accept` looks
        assert [d.problem for d in writer.accept(0)] == ["it holds other samples than it should"]
        assert 0 in writer.missing()
