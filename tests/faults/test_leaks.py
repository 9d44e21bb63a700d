"""What a stranger's run or store names or links to is not published: private files of this machine stay here."""

import hashlib
import os
import shutil
from pathlib import Path

import pytest

from ocd_core.artifacts import Artifacts, read_json, write_json
from ocd_core.errors import UserError
from ocd_core.provenance import MANIFEST, write_manifest
from ocd_core.report.run_export import export_run
from ocd_core.report.run_report import write_report
from ocd_core.report.store_export import export_store
from ocd_core.verify import verify
from tests.support.runs import reseal
from tests.support.stores import ABOUT, class_store
from tests.support.toy import ToyTask


@pytest.fixture
def run(toy_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Artifacts:
    shutil.copytree(toy_run, tmp_path / "project")
    monkeypatch.chdir(tmp_path / "project")
    return Artifacts("toy")


def published(folder: Path) -> list[str]:
    """The files below a folder in which the secret is, as it is or as a page embeds it."""
    return [str(p) for p in folder.rglob("*") if p.is_file() and {b"private", b"cHJpdmF0Z"} & _found(p.read_bytes())]


def _found(data: bytes) -> set[bytes]:
    return {word for word in (b"private", b"cHJpdmF0Z") if word in data}


def test_a_picture_is_one_that_the_stage_drew(run: Artifacts, secret: Path) -> None:
    (run.pictures / "own.png").write_bytes(b"drawn")
    reseal(run.pictures)
    (run.pictures / "left.png").write_bytes(b"not listed")
    write_report("toy")
    names = {path.name for path in run.report.iterdir()}
    assert "own.png" in names
    assert "left.png" not in names
    (run.pictures / "x.png").symlink_to(secret)
    with pytest.raises(UserError, match=r"pictures/x\.png is a link that manifest\.json does not list; run '"):
        write_report("toy")
    assert any("x.png is a link" in problem.what for problem in verify(str(run.rank_dir)))
    assert published(run.report) == []


@pytest.mark.parametrize("name", ["prepared/test.jsonl", "diagnosis/diagnosis.png", "evaluation/samples.tsv"])
def test_no_artifact_links_to_what_it_does_not_list(run: Artifacts, secret: Path, name: str) -> None:
    path = run.path(name.split("/")[0]) / name.split("/")[1]
    path.parent.mkdir(exist_ok=True)
    path.unlink(missing_ok=True)
    if not (path.parent / MANIFEST).is_file():
        write_manifest(path.parent, {"stage": "diagnose", "params": {}, "code": "", "inputs": {}}, {})
    reseal(path.parent)
    path.symlink_to(secret)
    with pytest.raises(UserError, match=r"is a link that manifest\.json does not list"):
        write_report("toy")


def test_a_link_into_a_cache_is_the_file(run: Artifacts, tmp_path: Path) -> None:
    """As DVC makes them with `cache.type symlink`."""
    for path in [*run.pictures.iterdir(), *run.prepared.iterdir(), *run.base.iterdir()]:
        kept = tmp_path / "cache" / hashlib.sha256(path.read_bytes()).hexdigest()
        kept.parent.mkdir(exist_ok=True)
        path.rename(kept)
        path.symlink_to(kept)
    export_run(run.rank_dir, "bundle")
    assert not any(path.is_symlink() for path in Path("bundle").rglob("*"))
    export_store(run.overfit("test"), "public")
    assert {path.name for path in Path("public/base").iterdir()} >= {"model.safetensors", "config.json"}


def travels(monkeypatch: pytest.MonkeyPatch, source: Path) -> None:
    monkeypatch.setattr(ToyTask, "travelling", lambda self, prepared: {"found": source})


def test_a_file_elsewhere_travels_if_the_params_file_says_so(run: Artifacts, secret: Path, monkeypatch) -> None:
    travels(monkeypatch, secret)
    export_run(run.rank_dir, "mine")
    assert published(Path("mine")) == ["mine/prepared/found"]
    config = read_json(run.evaluation / "config.json")
    write_json(run.evaluation / "config.json", {**config, "data": {"noise": 0.25}})
    reseal(run.evaluation)
    for _ in range(2):
        with pytest.raises(UserError, match=r"secret is outside of the run, .*params/toy\.yaml; .*write them"):
            export_run(run.rank_dir, "bundle")
        assert not Path("bundle").exists()
        Path("params/toy.yaml").write_text("domain: tests.support.toy:ToyTask\nmodel: tests.support.toy:PointSet\n")


def test_a_prepared_file_travels_if_its_manifest_lists_it(run: Artifacts, monkeypatch) -> None:
    travels(monkeypatch, run.prepared / "left.json")
    (run.prepared / "left.json").write_text("private")
    with pytest.raises(UserError, match=r"left\.json is not one of the files of .*prepared/manifest\.json"):
        export_run(run.rank_dir, "bundle")
    assert not Path("bundle").exists()


def test_an_artifacts_file_travels_if_its_manifest_lists_it(run: Artifacts) -> None:
    config = (run.scale / "config.json").read_bytes()
    (run.scale / "config.json").unlink()
    reseal(run.scale)
    (run.scale / "config.json").write_bytes(config)
    with pytest.raises(UserError, match=r"scale/config\.json is not one of the files of .*scale/manifest\.json"):
        export_run(run.rank_dir, "bundle")


@pytest.fixture
def export(tmp_path: Path) -> Path:
    """A stranger's export of a store, with its base network."""
    base = tmp_path / "theirs" / "base"
    base.mkdir(parents=True)
    (base / "model.safetensors").write_bytes(b"weights")
    about = {**ABOUT, "base_sha256": hashlib.sha256(b"weights").hexdigest()}
    class_store(tmp_path / "theirs" / "train.zarr", attributes=about)
    return tmp_path / "theirs"


@pytest.mark.timeout(60)
def test_an_exports_base_holds_no_links(export: Path, secret: Path, tmp_path: Path) -> None:
    (export / "base" / "other.txt").symlink_to(secret)
    os.mkfifo(export / "base" / "pipe")
    export_store(export / "train.zarr", str(tmp_path / "first"))
    assert published(tmp_path / "first") == []
    (export / "base" / "config.json").symlink_to(secret)
    with pytest.raises(UserError, match=r"base/config\.json is a link .*; put the file itself there, or remove it"):
        export_store(export / "train.zarr", str(tmp_path / "second"))
    (export / "base" / "config.json").unlink()
    os.mkfifo(export / "base" / "config.json")
    with pytest.raises(UserError, match=r"base/config\.json is a pipe or a device, not a file; remove it"):
        export_store(export / "train.zarr", str(tmp_path / "second"))
    assert not (tmp_path / "second").exists()
