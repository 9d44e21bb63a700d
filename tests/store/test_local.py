import errno
import os
import pickle
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ocd_core.errors import UserError
from ocd_core.store import OverfitStore, StoreSchema, verify_store
from tests.support.stores import complete, file_hashes, make_schema, make_values, open_writer, shard_of, whole_shard_of


@settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    layout=st.sampled_from(["dense", "factored"]),
    rows=st.integers(1, 23),
    shard_rows=st.integers(1, 9),
    outs=st.integers(1, 4),
    ins=st.integers(1, 4),
    output=st.sampled_from([(), (3,), (2, 3)]),
    target=st.sampled_from([((), "int64"), ((2,), "float32"), ((2, 2), "uint8")]),
    codec=st.sampled_from(["none", "lz4", "zstd"]),
    seed=st.integers(0, 99),
)
def test_round_trip(tmp_path_factory, layout, rows, shard_rows, outs, ins, output, target, codec, seed):
    schema = StoreSchema(
        layout=layout,
        rows=rows,
        out_features=outs,
        in_features=ins,
        steps=2,
        layer_input=(ins,),
        layer_activation=(outs,),
        base_output=output,
        target_shape=target[0],
        target_dtype=target[1],
        shard_rows=shard_rows,
        codec=codec,
    )
    values = make_values(schema, seed)
    dest = tmp_path_factory.mktemp("round") / "train.zarr"
    assert complete(dest, schema, values) == list(range(schema.shard_count))
    store = OverfitStore(dest)
    assert store.schema == schema
    for name, expected in values.items():
        np.testing.assert_array_equal(store.read(name), expected)
        assert store.read(name).dtype == expected.dtype
    assert verify_store(dest) == []


def test_values_that_equal_the_fill_are_stored(tmp_path):
    for dtype, fill in (("int64", -1), ("float32", np.nan)):
        schema = make_schema(rows=8, shard_rows=4, target_dtype=dtype)
        values = make_values(schema)
        values["target"][:] = fill
        complete(tmp_path / f"{dtype}.zarr", schema, values)
        assert verify_store(tmp_path / f"{dtype}.zarr") == []
        np.testing.assert_array_equal(OverfitStore(tmp_path / f"{dtype}.zarr").read("target"), values["target"])


def test_a_folder_whose_name_is_no_utf8(tmp_path):
    schema = make_schema()
    dest = tmp_path / os.fsdecode(b"caf\xe9") / "a.zarr"
    complete(dest, schema, make_values(schema))
    assert verify_store(dest) == []


def test_nothing_else_is_left(tmp_path):
    schema = make_schema()
    complete(tmp_path / "a.zarr", schema, make_values(schema))
    assert sorted(p.name for p in tmp_path.iterdir()) == [".work", "a.zarr"]
    assert list((tmp_path / ".work").iterdir()) == []
    expected = {f"{n}/zarr.json" for n in schema.arrays()} | {"zarr.json"}
    expected |= {spec.file(i) for spec in schema.arrays().values() for i in range(3)}
    assert set(file_hashes(tmp_path / "a.zarr")) == expected


@pytest.mark.parametrize("codec", ["none", "lz4", "zstd"])
def test_same_arrays_give_the_same_bytes_in_any_order(tmp_path, codec):
    schema = make_schema(codec=codec)
    values = make_values(schema)
    complete(tmp_path / "a.zarr", schema, values)
    with open_writer(tmp_path / "b.zarr", schema, values, fingerprint="f00d") as writer:
        for shard in reversed(writer.missing()):
            writer.write(shard, shard_of(schema, values, shard))
            writer.write(shard, shard_of(schema, values, shard))
        writer.finish()
    assert file_hashes(tmp_path / "a.zarr") == file_hashes(tmp_path / "b.zarr")


def test_resume_keeps_finished_shards(tmp_path):
    schema = make_schema()
    values = make_values(schema)
    complete(tmp_path / "whole.zarr", schema, values)
    dest = tmp_path / "a.zarr"
    with open_writer(dest, schema, values) as writer:
        writer.write(1, shard_of(schema, values, 1))
        kept = (writer.work / schema.arrays()["delta"].file(1)).stat().st_mtime_ns
    assert not dest.exists()
    with pytest.raises(UserError, match="not an overfit store"):
        OverfitStore(writer.work)
    with open_writer(dest, schema, values) as writer:
        assert writer.missing() == [0, 2]
        for shard in writer.missing():
            writer.write(shard, shard_of(schema, values, shard))
        writer.finish()
    assert (dest / schema.arrays()["delta"].file(1)).stat().st_mtime_ns == kept
    assert file_hashes(dest) == file_hashes(tmp_path / "whole.zarr")


def test_resume_drops_incomplete_and_damaged_shards_and_partial_files(tmp_path):
    schema = make_schema(rows=20)
    values = make_values(schema)
    dest = tmp_path / "a.zarr"
    with open_writer(dest, schema, values) as writer:
        for shard in range(5):
            writer.write(shard, shard_of(schema, values, shard))
        work = writer.work
    arrays = schema.arrays()
    (work / arrays["sample_id"].file(0)).unlink()
    (work / arrays["rho"].file(1)).write_bytes(b"")
    path = work / arrays["base_output"].file(2)
    path.write_bytes(path.read_bytes()[:-3])
    (work / arrays["sample_id"].file(3)).write_bytes((work / arrays["sample_id"].file(4)).read_bytes())
    (work / "delta" / "c.0.0.0.abc.partial").write_bytes(b"x")
    with open_writer(dest, schema, values) as writer:
        assert writer.missing() == [0, 1, 2, 3]
        assert not list(work.rglob("*.partial"))
        left = {p.name for p in (work / "delta").iterdir()}
        assert left == {"zarr.json", "c.4.0.0"}


def test_other_fingerprint_starts_anew_and_replaces(tmp_path):
    schema = make_schema()
    first, second = make_values(schema, 1), make_values(schema, 2)
    dest = tmp_path / "a.zarr"
    complete(dest, schema, first, fingerprint="one")
    with open_writer(dest, schema, second, fingerprint="two") as writer:
        assert writer.missing() == [0, 1, 2]
        np.testing.assert_array_equal(OverfitStore(dest).read("delta"), first["delta"])
        for shard in writer.missing():
            writer.write(shard, shard_of(schema, second, shard))
        writer.finish()
    np.testing.assert_array_equal(OverfitStore(dest).read("delta"), second["delta"])
    assert list((tmp_path / ".work").iterdir()) == []


def test_sound_store_is_left_alone(tmp_path):
    schema = make_schema()
    values = make_values(schema)
    dest = tmp_path / "a.zarr"
    complete(dest, schema, values)
    inode = dest.stat().st_ino
    with open_writer(dest, schema, values) as writer:
        assert writer.missing() == []
        assert dest.exists()
        writer.finish()
    assert dest.stat().st_ino == inode


def test_damaged_store_moves_back_and_only_bad_shards_are_replaced(tmp_path):
    schema = make_schema()
    values = make_values(schema)
    dest = tmp_path / "a.zarr"
    complete(dest, schema, values)
    sound = file_hashes(dest)
    file = schema.arrays()["delta"].file(1)
    cache = tmp_path / "cache"
    cache.hardlink_to(dest / file)  # as DVC's cache would
    damaged = bytearray(cache.read_bytes())
    damaged[5] ^= 1
    cache.write_bytes(damaged)
    kept = (dest / schema.arrays()["delta"].file(0)).stat().st_ino
    assert [d.shard for d in verify_store(dest)] == [1]
    with open_writer(dest, schema, values) as writer:
        assert writer.missing() == [1]
        assert not dest.exists()
    assert complete(dest, schema, values) == [1]
    assert file_hashes(dest) == sound
    assert cache.read_bytes() == bytes(damaged)  # replaced, not written in place
    assert (dest / schema.arrays()["delta"].file(0)).stat().st_ino == kept


def test_damaged_store_helps_a_work_folder_that_is_there(tmp_path):
    schema = make_schema(rows=12)
    values = make_values(schema)
    dest = tmp_path / "a.zarr"
    complete(dest, schema, values)
    sound = file_hashes(dest)
    elsewhere = dest.rename(tmp_path / "elsewhere")
    with open_writer(dest, schema, values) as writer:
        writer.write(0, shard_of(schema, values, 0))
    elsewhere.rename(dest)
    (dest / schema.arrays()["delta"].file(0)).unlink()
    (dest / schema.arrays()["delta"].file(2)).unlink()
    assert complete(dest, schema, values) == [2]
    assert file_hashes(dest) == sound


@pytest.mark.parametrize("key", ["zarr.json", "delta/zarr.json"])
def test_damaged_metadata_is_made_again(tmp_path, key):
    schema = make_schema()
    values = make_values(schema)
    dest = tmp_path / "a.zarr"
    complete(dest, schema, values)
    sound = file_hashes(dest)
    text = (dest / key).read_text()
    (dest / key).write_text(text.replace('"units": "1"', '"units": "7"', 1))
    assert len(verify_store(dest)) >= 1
    complete(dest, schema, values)
    assert file_hashes(dest) == sound


def test_something_else_in_the_way(tmp_path):
    schema = make_schema()
    values = make_values(schema)
    (tmp_path / "a.zarr").mkdir()
    (tmp_path / "a.zarr" / "thesis.txt").write_text("years of work")
    with pytest.raises(UserError, match="in the way"):
        open_writer(tmp_path / "a.zarr", schema, values)
    assert (tmp_path / "a.zarr" / "thesis.txt").exists()


def test_second_writer_is_refused(tmp_path):
    schema = make_schema()
    values = make_values(schema)
    with open_writer(tmp_path / "a.zarr", schema, values):
        with pytest.raises(UserError, match=f"process {os.getpid()} on"):
            open_writer(tmp_path / "a.zarr", schema, values, fingerprint="other")
        open_writer(tmp_path / "b.zarr", schema, values, fingerprint="other").close()
    open_writer(tmp_path / "a.zarr", schema, values).close()


def test_full_disk(tmp_path, monkeypatch):
    schema = make_schema()
    values = make_values(schema)
    dest = tmp_path / "a.zarr"
    with open_writer(dest, schema, values) as writer:
        writer.write(0, shard_of(schema, values, 0))
        written = []
        replace = Path.replace

        def full(self, target):
            written.append(target)
            if len(written) == 4:
                raise OSError(errno.ENOSPC, "No space left on device")
            return replace(self, target)

        monkeypatch.setattr(Path, "replace", full)
        with pytest.raises(UserError, match="no space left"):
            writer.write(1, shard_of(schema, values, 1))
        monkeypatch.undo()
        assert not list(writer.work.rglob("*.partial"))
        assert writer.missing() == [1, 2]
    assert complete(dest, schema, values) == [1, 2]


def test_other_processes_write_through_a_sink(tmp_path):
    schema = make_schema()
    values = make_values(schema)
    complete(tmp_path / "whole.zarr", schema, values)
    with open_writer(tmp_path / "a.zarr", schema, values) as writer:
        sink = pickle.loads(pickle.dumps(writer.sink()))
        for shard in (0, 1):
            sink.write(shard, whole_shard_of(schema, values, shard))
        assert writer.missing() == [0, 1, 2]
        assert writer.accept(0) == []
        assert [d.problem for d in writer.accept(2)] == ["the file is missing"] * 10
        assert writer.missing() == [1, 2]
        sink.write(2, whole_shard_of(schema, values, 2))
        writer.finish()
    assert file_hashes(tmp_path / "a.zarr") == file_hashes(tmp_path / "whole.zarr")


def test_unfinished_shards_keep_a_store_from_being_finished(tmp_path):
    schema = make_schema()
    values = make_values(schema)
    with open_writer(tmp_path / "a.zarr", schema, values) as writer:
        writer.write(0, shard_of(schema, values, 0))
        with pytest.raises(AssertionError, match=r"\[1, 2\]"):
            writer.finish()
    assert not (tmp_path / "a.zarr").exists()


def test_files_that_vanish_keep_a_store_from_being_finished(tmp_path):
    schema = make_schema()
    values = make_values(schema)
    dest = tmp_path / "a.zarr"
    with open_writer(dest, schema, values) as writer:
        for shard in writer.missing():
            writer.write(shard, shard_of(schema, values, shard))
        (writer.work / schema.arrays()["rho"].file(1)).unlink()
        with pytest.raises(UserError, match="vanished"):
            writer.finish()
    assert complete(dest, schema, values) == [1]


def test_really_full_disk(tmp_path):
    """A file system of 1 MiB, where this user may mount one."""
    mount = tmp_path / "small"
    mount.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(mount)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("may not mount a tmpfs")
    try:
        schema = make_schema(rows=12, out_features=40, in_features=60, layer_input=(60,))
        values = make_values(schema)
        dest = mount / "a.zarr"
        ballast = mount / "ballast"
        with open_writer(dest, schema, values) as writer:
            for shard in (0, 1):
                writer.write(shard, shard_of(schema, values, shard))
            ballast.write_bytes(bytes(shutil.disk_usage(mount).free - 16 * 1024))
            with pytest.raises(UserError, match="no space left"):
                writer.write(2, shard_of(schema, values, 2))
            assert not list(writer.work.rglob("*.partial"))
        ballast.unlink()
        assert complete(dest, schema, values) == [2]
        assert verify_store(dest) == []
    finally:
        subprocess.run(["umount", "--lazy", str(mount)], check=True)
