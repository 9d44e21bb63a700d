"""What stages refuse to use: what is damaged, or made from other params, code or inputs than those of today."""

import shutil
from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

from ocd_core import Predictor
from ocd_core.artifacts import Artifacts, read_json, write_json
from ocd_core.errors import UserError
from ocd_core.provenance import MANIFEST, Lineage, check_files, content_of, read_manifest
from ocd_core.sealed import SEAL
from tests.support.toy import run_stages, write_toy_params


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A toy run from end to end; tests work on copies."""
    root = tmp_path_factory.mktemp("finished")
    write_toy_params(root)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        run_stages("evaluate")
    return root


@pytest.fixture
def run(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Artifacts:
    shutil.copytree(finished, tmp_path / "run")
    monkeypatch.chdir(tmp_path / "run")
    return Artifacts("toy")


def stage(name: str, **options) -> None:
    import_module(f"stages.{name}").main("toy", **options)


def flip(path: Path, rng: np.random.Generator) -> None:
    data = bytearray(path.read_bytes())
    data[int(rng.integers(len(data)))] ^= 1 << int(rng.integers(8))
    path.unlink()
    path.write_bytes(data)


def test_what_was_there_when_a_stage_began_is_recorded(run: Artifacts, monkeypatch: pytest.MonkeyPatch) -> None:
    """If its code or an input changes while it runs, the artifact is of the old ones, and out of date."""
    lineage = Lineage.of("toy")
    lineage.check("train_scale")
    before = lineage.made_by("train_scale")
    other = Lineage.of("toy")
    store = run.overfit("train") / "zarr.json"
    about = read_json(store)
    about["attributes"]["fingerprint"] = "of another store"
    with lineage.write("scale") as dest:
        (dest / "kept.txt").write_text("trained meanwhile")
        write_json(store, about)
    assert read_manifest(run.scale)["inputs"] == before["inputs"]
    why = other.outdated("scale")
    assert why is not None
    assert "made from a different" in why
    monkeypatch.setattr("ocd_core.provenance.stage_digest", lambda *_: "new code")
    assert read_manifest(run.scale)["code"] == before["code"] != Lineage.of("toy").made_by("train_scale")["code"]


READERS = {  # an artifact's file, and a stage that reads it
    "prepared/train.safetensors": "train_base",
    "prepared/val.safetensors": "train_base",
    "seed0/base/model.safetensors": "score_layers",
    "seed0/layers/layers.json": "overfit",
    "seed0/rank1/diffusion/config.json": "train_controls",
    "seed0/rank1/scale/model.safetensors": "train_controls",
}


@pytest.mark.parametrize("file", READERS)
def test_one_flipped_bit_anywhere_is_named(run: Artifacts, file: str) -> None:
    path, whole = run.task_dir / file, (run.task_dir / file).read_bytes()
    reader = READERS[file]
    rng = np.random.default_rng(0)
    for _ in range(20):
        flip(path, rng)
        with pytest.raises(UserError, match=f"{path.name} is damaged.*dvc repro"):
            stage(reader)
        path.write_bytes(whole)


@pytest.mark.parametrize("file", READERS)
@pytest.mark.parametrize("fault", ["empty", "short", "gone", "folder", "dangling"])
def test_a_file_that_is_not_whole_is_named(run: Artifacts, file: str, fault: str) -> None:
    path = run.task_dir / file
    data = path.read_bytes()
    path.unlink()
    if fault in ("empty", "short"):
        path.write_bytes(b"" if fault == "empty" else data[:-1])
    elif fault == "folder":
        path.mkdir()
    elif fault == "dangling":
        path.symlink_to("nowhere")
    with pytest.raises(UserError, match=f"{path.name} is (damaged|missing)"):
        stage(READERS[file])


def test_prediction_checks_the_files_that_it_reads(run: Artifacts) -> None:
    rng = np.random.default_rng(1)
    for file in ["seed0/base/model.safetensors", *list(READERS)[4:], "seed0/rank1/evaluation/config.json"]:
        path = run.task_dir / file
        whole = path.read_bytes()
        flip(path, rng)
        with pytest.raises(UserError, match=f"{path.name} is damaged"):
            Predictor.from_artifacts(run.rank_dir)
        path.write_bytes(whole)
    assert Predictor.from_artifacts(run.rank_dir).model.layer_name == "head"


def test_another_seeds_base_does_not_answer(run: Artifacts) -> None:
    stage("train_base", seed=1)
    shutil.rmtree(run.base)
    shutil.copytree(Artifacts("toy", seed=1).base, run.base)
    with pytest.raises(UserError, match="trained for another base network"):
        Predictor.from_artifacts(run.rank_dir)
    with pytest.raises(
        UserError, match=r"layers is out of date: it was made from a different .*base than the present one"
    ):
        stage("overfit")
    with pytest.raises(UserError, match=r"train.zarr is out of date: it was made from a different .*base"):
        stage("train_scale")


def test_another_param_is_named_with_both_values(run: Artifacts) -> None:
    write_toy_params(Path(), base={"lr": 0.01})
    with pytest.raises(UserError, match=r"base is out of date: base.lr was 0.02 and is 0.01 now; .*stages.train_base"):
        stage("score_layers")
    write_toy_params(Path(), overfit={"steps": 2})
    with pytest.raises(UserError, match=r"train.zarr is out of date: overfit.steps was 3 and is 2 now"):
        stage("train_scale")
    write_toy_params(Path(), sampling={"steps": 2})  # trains nothing again
    stage("train_scale")


def test_data_prepared_anew_is_not_mixed_with_what_the_old_gave(run: Artifacts) -> None:
    values = {"noise": 0.2}
    write_toy_params(Path(), data=values)
    with pytest.raises(UserError, match=r"prepared is out of date: data.noise was 0.1 and is 0.2 now"):
        stage("train_base")
    stage("prepare")
    with pytest.raises(UserError, match=r"base is out of date: data.noise was 0.1"):
        stage("score_layers")
    write_toy_params(Path())  # the params go back, the data stay
    with pytest.raises(UserError, match="prepared is out of date"):
        stage("score_layers")


def test_code_that_has_changed_is_noticed(run: Artifacts, monkeypatch: pytest.MonkeyPatch) -> None:
    text = Path("params/toy.yaml").read_text()
    Path("params/toy.yaml").write_text(text.replace("tests.support.toy:ToyTask", "mytask:MyTask"))
    Path("mytask.py").write_text("from tests.support.toy import ToyTask\nclass MyTask(ToyTask):\n    pass\n")
    monkeypatch.syspath_prepend(Path.cwd())
    run_stages("train_base")
    stage("score_layers")
    Path("mytask.py").write_text(Path("mytask.py").read_text() + "# edited\n")
    with pytest.raises(UserError, match=r"the code of the stage prepare has changed.*stages.prepare --task toy'"):
        stage("score_layers")


def test_the_same_bytes_made_again_leave_what_follows_current(run: Artifacts) -> None:
    """As after DVC ran a stage again whose code changed and whose result did not."""
    manifest = read_json(run.base / MANIFEST)
    assert content_of("base", manifest["files"]) == Lineage.of("toy").content("base")
    metrics = read_json(run.base / "metrics.json")
    write_json(run.base / "metrics.json", {**metrics, "seconds": 1.0})  # tells how it was made, not what it is
    files = {**manifest["files"], "metrics.json": "0" * 64}
    assert content_of("base", files) == content_of("base", manifest["files"])
    assert content_of("base", {**files, "model.safetensors": "0" * 64}) != content_of("base", files)
    stage("train_base")
    stage("train_controls")


def test_a_manifest_lists_every_file_and_a_foreign_one_is_refused(run: Artifacts) -> None:
    for name in ("prepared", "base", "layers", "diffusion", "scale", "controls", "evaluation"):
        folder = run.path(name)
        files = check_files(folder)["files"]
        assert set(files) == {p.name for p in folder.iterdir()} - {MANIFEST}
    for text in ("[]", "null", "{", '{"files": {}}', ""):
        (run.base / MANIFEST).write_text(text)
        with pytest.raises(UserError, match=r"manifest.json is (damaged|not valid JSON)"):
            stage("score_layers")
    manifest = {"stage": "train_base", "params": {}, "code": "", "inputs": {}, "files": {}}
    for values in ({**manifest, "fills": {}}, {**manifest, "files": []}, {**manifest, "files": {"../a": "0"}}):
        write_json(run.base / MANIFEST, values)
        with pytest.raises(UserError, match=r"manifest.json is damaged"):
            stage("score_layers")
    write_json(run.base / MANIFEST, {**manifest, "stage": "prepare"})
    with pytest.raises(
        UserError, match=r"base is not what the stage train_base makes, but prepare; run 'dvc repro' or"
    ):
        stage("score_layers")
    (run.base / MANIFEST).unlink()
    with pytest.raises(UserError, match=r"manifest.json is missing"):
        stage("score_layers")


def test_a_manifest_without_a_seal_is_of_an_earlier_version(run: Artifacts) -> None:
    written = read_json(run.base / MANIFEST)
    assert SEAL in written
    for key in written:
        write_json(run.base / MANIFEST, {**written, key: "changed"})
        with pytest.raises(UserError, match=r"manifest\.json is damaged"):
            check_files(run.base)
    write_json(run.base / MANIFEST, {key: value for key, value in written.items() if key != SEAL})
    stage("score_layers")


def test_inputs_that_are_elsewhere_are_not_compared(run: Artifacts) -> None:
    """A machine that trains on stores alone."""
    for folder in (run.prepared, run.base, run.layers):
        shutil.rmtree(folder)
    stage("train_scale")
