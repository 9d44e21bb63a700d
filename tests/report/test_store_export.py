import hashlib
import json
import os
from pathlib import Path

import fsspec
import numpy as np
import pytest

from ocd_core.errors import UserError
from ocd_core.report import store_export as export_module
from ocd_core.report.store_card import write_card
from ocd_core.report.store_export import export_store
from ocd_core.store import OverfitStore, verify_store
from tests.support.stores import ABOUT, class_store, file_hashes

WEIGHTS = b"the weights of the base network"


@pytest.fixture
def run(tmp_path) -> Path:
    """A run's folders: a base network, and a store that was made with it."""
    seed = tmp_path / "data" / "toy" / "seed0"
    (seed / "base").mkdir(parents=True)
    (seed / "base" / "model.safetensors").write_bytes(WEIGHTS)
    (seed / "base" / "config.json").write_text("{}")
    (seed / "base" / "curve.tsv").write_text("epoch\n")
    make_store(seed / "rank1" / "overfit")
    return seed


def make_store(folder: Path, **changes) -> Path:
    about = {**ABOUT, "base_sha256": hashlib.sha256(WEIGHTS).hexdigest(), **changes.pop("about", {})}
    class_store(folder / "train.zarr", attributes=about, **changes)
    return folder / "train.zarr"


@pytest.fixture
def store(run) -> Path:
    return run / "rank1" / "overfit" / "train.zarr"


@pytest.fixture
def memory():
    fs = fsspec.filesystem("memory")
    yield fs
    fs.rm("/exports", recursive=True) if fs.exists("/exports") else None


def test_a_folder_with_everything(tmp_path, store):
    dest = tmp_path / "deep" / "public"
    manifest = export_store(store, str(dest))
    assert sorted(p.name for p in dest.iterdir()) == ["MANIFEST.json", "base", "train.card", "train.zarr"]
    assert sorted(p.name for p in dest.parent.iterdir()) == ["public"]  # no lock, no partial
    assert file_hashes(dest / "train.zarr") == file_hashes(store)
    write_card(store, tmp_path / "wanted.card")
    assert file_hashes(dest / "train.card") == file_hashes(tmp_path / "wanted.card")
    assert sorted(p.name for p in (dest / "base").iterdir()) == ["config.json", "model.safetensors"]
    assert (dest / "base" / "model.safetensors").read_bytes() == WEIGHTS
    assert json.loads((dest / "MANIFEST.json").read_text()) == manifest
    on_disk = file_hashes(dest)
    del on_disk["MANIFEST.json"]
    assert {k: v["sha256"] for k, v in manifest["files"].items()} == on_disk
    assert all((dest / k).stat().st_size == v["bytes"] for k, v in manifest["files"].items())


def test_a_name_that_is_no_utf8(tmp_path, run):
    """A store of the task whose data is in a folder with such a name: its card has what the store says."""
    config = {"data": {"path": os.fsdecode(b"caf\xe9")}}
    store = make_store(run / "rank2" / "overfit", about={"config": config})
    export_store(store, str(tmp_path / "public"))
    assert json.loads((tmp_path / "public" / "train.card" / "card.json").read_text())["config"] == config


def test_to_memory_and_from_there_to_a_folder(tmp_path, store, memory):
    export_store(store, "memory://exports/toy/")
    assert verify_store("memory://exports/toy/train.zarr") == []
    np.testing.assert_array_equal(
        OverfitStore("memory://exports/toy/train.zarr").deltas(), OverfitStore(store).deltas()
    )
    export_store("memory://exports/toy/train.zarr", str(tmp_path / "back"))
    there = {k.removeprefix("/exports/toy/"): memory.cat_file(k) for k in memory.find("/exports/toy")}
    assert {k: hashlib.sha256(v).hexdigest() for k, v in there.items()} == file_hashes(tmp_path / "back")


def test_relative_paths(run, store, monkeypatch):
    monkeypatch.chdir(run / "rank1")
    export_store("overfit/train.zarr/", "out")
    assert (run / "rank1" / "out" / "base" / "model.safetensors").is_file()
    monkeypatch.chdir(run / "rank1" / "overfit")
    export_store("train.zarr", "../other")
    assert file_hashes(run / "rank1" / "other") == file_hashes(run / "rank1" / "out")


@pytest.mark.parametrize("make", [lambda p: p.mkdir(), lambda p: p.write_text("x")])
def test_dest_must_not_exist(tmp_path, store, make):
    make(tmp_path / "d")
    with pytest.raises(UserError, match="exists"):
        export_store(store, str(tmp_path / "d"))
    make_again = sorted(p.name for p in tmp_path.iterdir())
    assert make_again == ["d", "data"]


def test_an_incomplete_remote_export_is_named(store, memory):
    memory.pipe_file("/exports/toy/train.zarr/rho/c.0", b"x")
    with pytest.raises(UserError, match=r"no complete export \(it has no MANIFEST.json\)"):
        export_store(store, "memory://exports/toy")
    assert memory.cat_file("/exports/toy/train.zarr/rho/c.0") == b"x"


def test_a_failure_leaves_nothing(tmp_path, store, memory, monkeypatch):
    copy = export_module.copy_store

    def fail(location, dest):
        copy(location, dest)
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(export_module, "copy_store", fail)
    with pytest.raises(UserError, match=r"cannot be written: No space left"):
        export_store(store, str(tmp_path / "d"))
    assert [p.name for p in tmp_path.iterdir()] == ["data"]
    with pytest.raises(OSError, match="No space"):
        export_store(store, "memory://exports/toy")
    assert not memory.exists("/exports/toy")


def test_two_exports_to_one_url(store, memory, monkeypatch):
    """The second one begins while the first copies; neither reports a success that is none."""
    copy, errors = export_module.copy_store, []

    def second_meanwhile(location, dest):
        copy(location, dest)
        monkeypatch.setattr(export_module, "copy_store", copy)
        try:
            export_store(store, "memory://exports/toy")
        except UserError as error:
            errors.append(str(error))

    monkeypatch.setattr(export_module, "copy_store", second_meanwhile)
    manifest = export_store(store, "memory://exports/toy")
    assert len(errors) == 1
    assert verify_store("memory://exports/toy/train.zarr") == []
    there = {k.removeprefix("/exports/toy/") for k in memory.find("/exports/toy")}
    assert there == {*manifest["files"], "MANIFEST.json"}


def test_an_export_whose_files_another_removes(store, memory, monkeypatch):
    copy = export_module.copy_store

    def removed(location, dest):
        copy(location, dest)
        memory.rm("/exports/toy/train.zarr/delta", recursive=True)

    monkeypatch.setattr(export_module, "copy_store", removed)
    with pytest.raises(UserError, match=r"train\.zarr/delta/.* was removed by another process meanwhile"):
        export_store(store, "memory://exports/toy")
    assert not memory.exists("/exports/toy/MANIFEST.json")


def test_what_a_killed_export_left_is_swept(tmp_path, store):
    (tmp_path / ".d.ocd-abcd1234.partial" / "train.zarr").mkdir(parents=True)
    (tmp_path / ".d.ocd-abcd1234.partial" / "train.zarr" / "junk").write_text("x")
    export_store(store, str(tmp_path / "d"))
    assert file_hashes(tmp_path / "d" / "train.zarr") == file_hashes(store)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["d", "data"]


def test_a_strangers_folder_beside_the_export_stays(tmp_path, store):
    for name in (".mine.partial", ".mine.x.partial", "mine.partial"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "precious").touch()
    export_store(store, str(tmp_path / "mine"))
    assert len(list(tmp_path.glob("*.partial/precious"))) == 3


def test_a_damaged_store_is_refused(tmp_path, store):
    path = store / "delta" / "c.1.0.0"
    data = bytearray(path.read_bytes())
    data[5] ^= 8
    path.write_bytes(data)
    with pytest.raises(UserError, match="shard 1 of delta"):
        export_store(store, str(tmp_path / "d"))
    assert not (tmp_path / "d").exists()


def test_the_base_must_be_there_and_the_right_one(tmp_path, run, store):
    weights = run / "base" / "model.safetensors"
    moved = tmp_path / "kept" / "model.safetensors"
    moved.parent.mkdir()
    weights.rename(moved)
    with pytest.raises(UserError, match=r"base weights are missing.*--base"):
        export_store(store, str(tmp_path / "d"))
    weights.write_bytes(b"another network")
    with pytest.raises(UserError, match="another checkpoint"):
        export_store(store, str(tmp_path / "d"))
    with pytest.raises(UserError, match="missing"):
        export_store(store, str(tmp_path / "d"), tmp_path / "nowhere")
    export_store(store, str(tmp_path / "d"), moved.parent)
    assert (tmp_path / "d" / "base" / "model.safetensors").read_bytes() == WEIGHTS


def test_other_refusals(tmp_path, store):
    with pytest.raises(UserError, match="inside the store"):
        export_store(store, str(store / "sub"))
    with pytest.raises(UserError, match="Protocol not known"):
        export_store(store, "nosuch://bucket/x")
    with pytest.raises(UserError, match="no store"):
        export_store(tmp_path / "none.zarr", str(tmp_path / "d"))
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match="is not a folder, which must be there"):
        export_store(store, str(tmp_path / "file" / "d"))
