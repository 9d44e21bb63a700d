import fsspec
import numpy as np
import pytest

from ocd_core.errors import UserError
from ocd_core.store import OverfitStore, copy_store, verify_store
from tests.support.stores import complete, file_hashes, make_schema, make_values


@pytest.fixture
def dest(tmp_path):
    schema = make_schema()
    complete(tmp_path / "a.zarr", schema, make_values(schema))
    return tmp_path / "a.zarr"


@pytest.fixture
def memory():
    fs = fsspec.filesystem("memory")
    yield fs
    fs.rm("/bucket", recursive=True) if fs.exists("/bucket") else None


def test_to_memory_and_back(dest, memory, tmp_path):
    url = "memory://bucket/deep/a.zarr"
    copy_store(dest, url)
    here, there = OverfitStore(dest), OverfitStore(url)
    for name in here.schema.arrays():
        np.testing.assert_array_equal(there.read(name), here.read(name))
    np.testing.assert_array_equal(there.deltas(np.array([3, 1])), here.deltas(np.array([3, 1])))
    assert verify_store(url) == []
    copy_store(url, str(tmp_path / "b.zarr"))
    assert file_hashes(tmp_path / "b.zarr") == file_hashes(dest)


def test_damage_in_a_url_is_found(dest, memory):
    url = "memory://bucket/a.zarr"
    copy_store(dest, url)
    data = bytearray(memory.cat_file("/bucket/a.zarr/delta/c.0.0.0"))
    data[3] ^= 4
    memory.pipe_file("/bucket/a.zarr/delta/c.0.0.0", bytes(data))
    memory.rm_file("/bucket/a.zarr/rho/c.1")
    assert [(d.shard, d.array) for d in verify_store(url)] == [(0, "delta"), (1, "rho")]
    with pytest.raises(UserError, match="missing or empty"):
        OverfitStore(url)
    with pytest.raises(UserError, match="no store"):
        OverfitStore("memory://bucket/none.zarr")


def test_refusals(dest, memory, tmp_path):
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").write_text("x")
    with pytest.raises(UserError, match="is not empty"):
        copy_store(dest, str(tmp_path / "full"))
    (dest / "rho" / "c.0").unlink()
    with pytest.raises(UserError, match="not copied"):
        copy_store(dest, "memory://bucket/a.zarr")
    assert not memory.exists("/bucket/a.zarr")


def test_unknown_protocol():
    with pytest.raises(UserError, match="nowhere"):
        OverfitStore("nowhere://bucket/a.zarr")


def test_local_paths_are_taken_literally(dest):
    """`::` chains file systems in a URL, and `~` is a name like any other."""
    odd = dest.rename(dest.parent / "a::b ~c#d.zarr")
    assert len(OverfitStore(odd)) == 10
    assert verify_store(odd) == []
    copy_store(odd, str(dest.parent / "zip::copy.zarr"))
    assert file_hashes(dest.parent / "zip::copy.zarr") == file_hashes(odd)
