"""`verify` at every kind of path; that each damaged file is found is in tests/faults/test_every_file.py."""

import json
import shutil
from pathlib import Path

import pytest

from ocd_core.artifacts import Artifacts, write_json
from ocd_core.bundles.fetch import bundle_folder
from ocd_core.errors import UserError
from ocd_core.files import sha256_files
from ocd_core.provenance import content, write_manifest
from ocd_core.verify import verify
from tests.support.stores import class_store


def make(run: Artifacts, name: str, stage: str, **inputs: str) -> Path:
    """An artifact of one file."""
    folder = run.path(name)
    write_json(folder / "model.safetensors", {"of": name})
    made = {"stage": stage, "params": {}, "code": "", "inputs": inputs}
    write_manifest(folder, made, {"model.safetensors": sha256_files(folder)["model.safetensors"]})
    return folder


@pytest.fixture
def run(tmp_path: Path) -> Artifacts:
    run = Artifacts("toy", 1, 2, tmp_path)
    make(run, "prepared", "prepare")
    make(run, "base", "train_base", prepared=str(content(run, "prepared")))
    make(run, "scale", "train_scale")
    return run


def whats(path: Path) -> list[str]:
    return [problem.what.replace(str(path), "") for problem in verify(str(path))]


def test_a_run_names_what_is_missing_though_something_was_made_from_it(run: Artifacts) -> None:
    missing = [problem.what for problem in verify(str(run.rank_dir))]
    assert missing == [f"{run.overfit(split)} is missing" for split in ("train", "val")]
    first = verify(str(run.rank_dir))[0]
    assert first.remedy == "run 'python -m stages.overfit --task toy --seed 1 --rank 2 --split train'"


def test_an_artifact_of_other_inputs(run: Artifacts) -> None:
    assert verify(str(run.base)) == []
    (run.prepared / "model.safetensors").write_text("new")
    made = {"stage": "prepare", "params": {}, "code": "", "inputs": {}}
    write_manifest(run.prepared, made, {"model.safetensors": "0" * 64})
    (problem,) = verify(str(run.base))
    assert problem.what == f"{run.base} was made from another {run.prepared} than the present one"
    assert problem.remedy == "run 'python -m stages.train_base --task toy --seed 1'"


@pytest.mark.parametrize("fault", ["file", "link"])
def test_something_else_in_a_folders_place(run: Artifacts, fault: str) -> None:
    shutil.rmtree(run.base)
    if fault == "file":
        run.base.write_text("x")
    else:
        run.base.symlink_to("nowhere")
    assert f"{run.base} is not a folder" in [problem.what for problem in verify(str(run.rank_dir))]


def test_a_bundle(tmp_path: Path) -> None:
    folder = tmp_path / "bundle"
    shutil.copytree(bundle_folder("mnist5k-conv2"), folder)
    assert verify(str(folder)) == []
    (folder / "base" / "model.safetensors").unlink()
    assert whats(folder) == ["/base/model.safetensors is missing"]


def test_an_export(tmp_path: Path) -> None:
    class_store(tmp_path / "train.zarr")
    files = {name: {"sha256": sha} for name, sha in sha256_files(tmp_path).items() if not name.startswith(".")}
    write_json(tmp_path / "MANIFEST.json", {"files": files})
    assert verify(str(tmp_path)) == []
    (tmp_path / "train.zarr" / "rho" / "c.0").write_bytes(b"")
    assert whats(tmp_path) == ["/train.zarr/rho/c.0 is damaged: its content does not match MANIFEST.json"]
    for text in ("[]", json.dumps({"files": {"a": 1}}), json.dumps({"files": None})):
        (tmp_path / "MANIFEST.json").write_text(text)
        assert whats(tmp_path) == ["/MANIFEST.json is damaged: it does not list the files"]
    write_json(tmp_path / "MANIFEST.json", {"files": {"../../etc/passwd": {"sha256": "0"}}})
    assert whats(tmp_path) == ["/MANIFEST.json names a file outside of the folder, '../../etc/passwd'"]


def test_a_store(tmp_path: Path) -> None:
    store = tmp_path / "train.zarr"
    class_store(store)
    assert verify(str(store)) == []
    (store / "rho" / "c.1").unlink()
    assert whats(store) == [": shard 1 of rho (samples 4 to 7): the file is missing"]


def test_what_cannot_be_verified(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("nowhere")
    for name, message in (
        ("none", "there is nothing at .*none"),
        ("link", "nothing at .*link .it is a link to nothing"),
        ("file", "file is not a folder"),
        ("", "nothing says what it should hold"),
    ):
        with pytest.raises(UserError, match=message):
            verify(str(tmp_path / name))
