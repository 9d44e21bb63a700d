"""Every command of `ocd`, with what users get wrong: one line on standard error, a status other than 0."""

import json
import os
import shutil
import subprocess
import sys
import webbrowser
from pathlib import Path

import pytest

from ocd_core.cli import main
from tests.support.pictures import picture, png
from tests.support.repository import REPO
from tests.support.stores import class_store


@pytest.fixture
def store(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    class_store(tmp_path / "train.zarr")
    return Path("train.zarr")


def test_the_command_itself(tmp_path):
    """Through a process: no traceback, the status of the shell."""
    command = [sys.executable, "-c", "from ocd_core.cli import main; main()", "verify", "none.zarr"]
    environment = {**os.environ, "PYTHONPATH": str(REPO)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "error: there is nothing at none.zarr\n")


def write_png(path: Path) -> None:
    """A grey picture of 28 × 28."""
    path.write_bytes(png(picture(3, size=(28, 28))))


def test_help_and_unknown_words(ocd):
    assert "inspect" in ocd("--help").out
    for command in (
        "tasks", "run", "status", "inspect", "verify", "export", "predict", "diagnose", "report", "compare", "preset",
    ):  # fmt: skip
        assert ocd(command, "--help").status == 0
    for wrong in (["nonsense"], ["inspect"], ["inspect", "a.zarr", "--sample", "x"]):
        done = ocd(*wrong)
        assert done.status == 2
        assert "Traceback" not in done.err


def test_tasks(ocd, in_run, monkeypatch):
    monkeypatch.setenv("COLUMNS", "160")  # a narrow terminal cuts long names
    done = ocd("tasks")
    assert done.status == 0
    assert "tests.support.toy:PlaneTask" in done.out
    assert "unknown domain 'nothing'" in " ".join(done.out.split())
    assert "images" in done.out


def test_inspect(ocd, store, tmp_path):
    done = ocd("inspect", store, "--sample", 7)
    assert done.status == 0
    assert "row 7: " in done.out
    assert "30 rows" in done.out
    assert not [p.name for p in tmp_path.iterdir() if p.suffix in (".png", ".html")]  # which nobody asked for


def test_inspect_to_other_places(ocd, store, tmp_path):
    done = ocd("inspect", store, "--out", "new/a.png", "--html", "pages/a.html")
    assert "new/a.png" in done.out
    assert (tmp_path / "new/a.png").read_bytes()[:4] == b"\x89PNG"
    assert "pages/a.html" in done.out
    assert (tmp_path / "new/a.png").is_file()
    assert (tmp_path / "pages/a.html").read_text().startswith("<!doctype html>")
    assert not (tmp_path / "train.png").exists()


@pytest.mark.parametrize("sample", ["-1", "30"])
def test_inspect_a_row_that_is_not_there(ocd, store, sample):
    ocd("inspect", store, f"--sample={sample}").refused(f"--sample {sample}", "rows 0 to 29")


def test_inspect_where_nothing_can_be_written(ocd, store, tmp_path):
    (tmp_path / "file").write_text("x")
    ocd("inspect", store, "--out", tmp_path).refused("is a folder")
    ocd("inspect", store, "--html", tmp_path).refused("is a folder")
    ocd("inspect", store, "--out", "file/a.png").refused("file")


@pytest.mark.parametrize("command", ["inspect", "verify"])
def test_what_is_no_store(ocd, tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    ocd(command, "none.zarr").refused("no store at" if command == "inspect" else "nothing at", "none.zarr")
    ocd(command, "memory://none.zarr").refused("no store at memory://none.zarr")
    ocd(command, "nosuch://none.zarr").refused("nosuch://none.zarr", "Protocol not known")
    (tmp_path / "foreign").mkdir()
    ocd(command, "foreign").refused("foreign is not an overfit store")
    (tmp_path / "file").touch()
    ocd(command, "file").refused("file is not a")
    (tmp_path / "link").symlink_to("nowhere")
    ocd(command, "link").refused("at link")
    (tmp_path / "foreign" / "zarr.json").write_text('{"zarr_format": 3, "node_type": "group", "attributes": {}}')
    ocd(command, "foreign").refused("some other zarr group")


def test_verify_a_sound_store(ocd, store):
    done = ocd("verify", store)
    assert (done.status, done.out) == (0, "train.zarr is whole\n")


def test_verify_names_a_flipped_bit(ocd, store):
    path = store / "delta" / "c.2.0.0"
    data = bytearray(path.read_bytes())
    data[10] ^= 16
    path.write_bytes(data)
    done = ocd("verify", store)
    done.refused("1 damaged part;")
    assert done.out == "train.zarr: shard 2 of delta (samples 8 to 11): its content does not match its checksum\n"
    ocd("inspect", store, "--sample", 9).refused("train.zarr is damaged", "delta", "ocd verify")


def test_verify_a_run_and_what_it_rests_on(ocd, in_run, toy_run, tmp_path):
    shutil.copytree(toy_run / "data", tmp_path / "data")
    run = tmp_path / "data/toy/seed0/rank1"
    assert ocd("verify", run).out == f"{run} is whole\n"
    config = run / "controls" / "config.json"
    config.write_text(config.read_text().replace('"gain"', '"gaim"'))
    done = ocd("verify", run)
    done.refused("1 damaged part; run 'python -m stages.train_controls --task toy --seed 0 --rank 1'")
    assert done.out == f"{config} is damaged: its content does not match manifest.json\n"
    shutil.rmtree(run.parent / "base")
    assert f"{run.parent / 'base'} is missing\n" in ocd("verify", run).out


def test_inspect_a_store_that_lacks_a_shard(ocd, store):
    (store / "rho" / "c.0").unlink()
    ocd("inspect", store).refused("rho/c.0 is missing")
    assert "shard 0 of rho (samples 0 to 3): the file is missing" in ocd("verify", store).out


def test_export(ocd, in_run, tmp_path):
    done = ocd("export", in_run, tmp_path / "public")
    assert done.status == 0
    assert "MB" in done.out
    card = json.loads((tmp_path / "public/test.card/card.json").read_text())
    assert (card["rows"], card["licence"], card["source"]) == (40, "CC0-1.0", "random points")
    assert ocd("verify", tmp_path / "public/test.zarr").status == 0
    ocd("export", in_run, tmp_path / "public").refused("exists already")
    ocd("export", tmp_path / "none.zarr", tmp_path / "b").refused("no store")


def test_export_of_a_run_and_predict_with_its_bundle(ocd, in_run, toy_run, tmp_path):
    done = ocd("export", "data/toy/seed0/rank1", tmp_path / "bundle")
    assert done.status == 0, done.err
    assert done.out.startswith(f"{tmp_path / 'bundle'}: 11 files, 0.")
    ocd("export", "data/toy/seed0/rank1", tmp_path / "bundle").refused("exists already")
    ocd("export", "data/toy/seed0/rank1", tmp_path / "b", "--base", tmp_path).refused("--base is for stores")
    (tmp_path / "a.json").write_text("[1.0, 0.5]")
    ocd("predict", tmp_path / "bundle", tmp_path / "a.json").refused("toy:PlaneTask", "--trust-remote-code")
    found = ocd("predict", tmp_path / "bundle", tmp_path / "a.json", "--draws", 3, "--trust-remote-code")
    assert found.out == ocd("predict", "toy", tmp_path / "a.json", "--draws", 3).out


def test_predict_with_the_bundle_of_the_package(ocd, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_png(Path("digit.png"))
    done = ocd("predict", "mnist5k-conv2", "digit.png", "--draws", 2)
    assert set(json.loads(done.out)["ocd"]) == {"class", "probability"}, done.err


def test_each_store_has_a_card_in_the_report(ocd, in_run, toy_run):
    folder = toy_run / "data/toy/seed0/rank1/overfit"
    assert sorted(p.name for p in folder.iterdir()) == ["test.zarr", "train.zarr", "val.zarr"]
    assert ocd("report", "toy").status == 0
    for split in ("train", "val", "test"):
        card = toy_run / "reports/toy/cards" / f"seed0-rank1-{split}"
        assert json.loads((card / "card.json").read_text())["split"] == split
        assert (card / "README.md").read_text().startswith(f"# Overfitted weights: toy, {split} split")


def test_predict(ocd, in_run, tmp_path):
    (tmp_path / "a.json").write_text("[1.0, 0.5]")
    (tmp_path / "b.json").write_text("[-1.0, 0.5]")
    done = ocd("predict", "toy", tmp_path / "a.json", tmp_path / "b.json", "--draws", 3)
    assert done.status == 0, done.err
    first, second = (json.loads(line) for line in done.out.splitlines())
    assert first["input"].endswith("a.json")
    assert first["draws"] == 3
    assert first["rho"] > 0
    assert first["base"] != second["base"]
    assert set(first["ocd"]) == set(first["base"]) == {"y0", "y1"}
    assert "files" not in first
    assert ocd("predict", "toy", tmp_path / "a.json", "--draws", 3).out == done.out.splitlines()[0] + "\n"


def test_predict_overwrites_no_file_unasked(ocd, in_run, tmp_path, monkeypatch):
    def write_output(task, output, dest, name):
        (dest / f"{name}_s1.wav").write_text(str(output))
        return [dest / f"{name}_s1.wav"]

    monkeypatch.setattr("ocd_core.tasks.base.Task.write_output", write_output)
    (tmp_path / "a.json").write_text("[1.0, 0.5]")
    mine = tmp_path / "a_s1.wav"
    mine.write_text("a voice of mine")
    ocd("predict", "toy", tmp_path / "a.json", "--out", tmp_path).refused(f"{mine} already exists", "--force", "--out")
    assert mine.read_text() == "a voice of mine"
    done = ocd("predict", "toy", tmp_path / "a.json", "--out", tmp_path, "--force")
    assert json.loads(done.out)["files"] == [str(mine)]
    assert mine.read_text().startswith("tensor")
    assert {path.name for path in tmp_path.iterdir()} >= {"a.json", "a_s1.wav"}


def test_predict_refusals(ocd, in_run, tmp_path):
    good = tmp_path / "a.json"
    good.write_text("[1.0, 0.5]")
    ocd("predict", "unknown", good).refused("unknown")
    ocd("predict", "toy", good, "--seed", 3).refused("seed3")
    ocd("predict", "toy", good, "--rank", 2).refused("rank2")
    ocd("predict", "toy", good, "--rank", 0).refused("rank at least 1")
    ocd("predict", "toy", good, "--draws", 0).refused("draws=0")
    ocd("predict", "toy", tmp_path / "none.json").refused("none.json does not exist")
    ocd("predict", "toy", good, "--out", tmp_path / "nowhere").refused("--out", "nowhere is not a folder")
    (tmp_path / "other").mkdir()
    shutil.copyfile(good, tmp_path / "other" / "a.json")
    ocd("predict", "toy", good, tmp_path / "other" / "a.json").refused("2 inputs are named 'a'")
    (tmp_path / "bad.json").write_text("{")
    ocd("predict", "toy", tmp_path / "bad.json").refused("bad.json", "not a JSON list")


@pytest.mark.parametrize("values", ["[NaN, 0.5]", "[1e38, -Infinity]"])
def test_predict_refuses_an_answer_that_is_not_finite(ocd, in_run, tmp_path, values):
    (tmp_path / "good.json").write_text("[1.0, 0.5]")
    (tmp_path / "bad.json").write_text(values)
    done = ocd("predict", "toy", tmp_path / "good.json", tmp_path / "bad.json")
    assert done.status == 1
    assert "good.json" in done.out
    assert "bad.json" not in done.out
    assert "bad.json: the network's answer holds NaN or infinity" in done.err


def test_report(ocd, in_run, toy_run):
    done = ocd("report", "toy")
    assert done.status == 0
    assert "overfitted on test (bound)" in done.out
    made = sorted(p.name for p in (toy_run / "reports/toy").iterdir())
    assert made == [
        "cards",
        "curves.png",
        "index.html",
        "layer_scores.png",
        "manifest.json",
        "overfit_test.png",
        "page.json",
        "results.json",
        "runtime.md",
        "scale.md",
        "table.md",
    ]
    assert "page: reports/toy/index.html" in done.out
    ocd("report", "unknown").refused("no evaluated run of task 'unknown'")


def test_report_in_a_browser(ocd, in_run, toy_run, monkeypatch):
    opened = []
    monkeypatch.setattr(webbrowser, "open", lambda url: opened.append(url) or len(opened) < 2)
    assert ocd("report", "--open", "toy").status == 0
    assert opened == [(toy_run / "reports/toy/index.html").as_uri()]
    ocd("report", "--open", "toy").refused("no browser can be started here; open reports/toy/index.html yourself")


def test_diagnose(ocd, in_run, toy_run):
    done = ocd("diagnose", "toy")  # nothing is missing, so nothing runs
    assert done.status == 0, done.err
    assert done.out.startswith((toy_run / "data/toy/seed0/diagnosis/verdict.md").read_text())
    assert "picture: data/toy/seed0/diagnosis/diagnosis.png" in done.out
    ocd("diagnose", "unknown").refused("unknown")


def test_compare(ocd, in_run, toy_run, tmp_path):
    shutil.copytree(toy_run / "data" / "toy", tmp_path / "data" / "toy")
    runs = ["data/toy/seed0/rank1", tmp_path / "data/toy/seed0/rank1"]
    done = ocd("compare", *runs, "--html", tmp_path / "page.html")
    assert done.status == 0, done.err
    assert "overfitted on test (bound)" in done.out
    assert (tmp_path / "page.html").read_text().startswith("<!doctype html>")
    ocd("compare", runs[0]).refused("at least two runs")
    first, second = json.loads(ocd("compare", *runs, "--json").out)
    assert first["params"] == second["params"]
    assert {r["row"] for r in first["results"]} >= {"base", "ocd", "bound"}


def test_what_programs_read_and_what_people_debug(ocd, store, tmp_path, monkeypatch):
    assert json.loads(ocd("verify", store, "--json").out) == {"path": "train.zarr", "damages": []}
    monkeypatch.setattr("ocd_core.verify.verify", lambda path: {}[path])
    ocd("verify", store).refused("KeyError", "'ocd --debug ...' shows where")
    monkeypatch.setattr(sys, "argv", ["ocd", "--debug", "verify", "train.zarr"])
    with pytest.raises(KeyError):
        main()


def test_from_a_folder_below_and_with_a_root(ocd, in_run, toy_run, tmp_path, monkeypatch):
    """Paths are read as typed where they are there, else from the root; what is written lies where it was typed."""
    below = toy_run / "data" / "toy"
    monkeypatch.chdir(below)
    assert ocd("verify", "seed0/rank1/overfit/val.zarr").out == "seed0/rank1/overfit/val.zarr is whole\n"
    monkeypatch.chdir(below)
    assert ocd("verify", "data/toy/seed0/rank1/overfit/val.zarr").status == 0
    monkeypatch.chdir(tmp_path)
    ocd("status", "toy").refused("unknown task 'toy'")
    done = ocd("--root", toy_run, "inspect", in_run, "--out", "a.png")
    assert done.status == 0, done.err
    assert (tmp_path / "a.png").is_file()
    monkeypatch.chdir(tmp_path)
    ocd("--root", tmp_path / "none", "tasks").refused("--root", "is not a folder")


def test_preset(ocd, tmp_path, monkeypatch):
    (tmp_path / "params").mkdir()
    (tmp_path / "params" / "mnist5k.yaml").write_text((REPO / "params" / "mnist5k.yaml").read_text())
    monkeypatch.chdir(tmp_path)
    done = ocd("preset", "released", "mnist5k", "--overrides")
    assert done.status == 0
    assert "-S params/mnist5k.yaml:diffusion.denoiser.multipliers=[1,1,2,2,4,4]" in done.out.splitlines()
    assert [p.name for p in (tmp_path / "params").iterdir()] == ["mnist5k.yaml"]
    done = ocd("preset", "released", "mnist5k")
    assert done.status == 0
    assert "append mnist5k_released to tasks" in done.out
    ocd("preset", "released", "mnist5k").refused("mnist5k_released.yaml", "--force")
    assert ocd("preset", "released", "mnist5k", "--force").status == 0
    assert "unet_released" in (tmp_path / "params" / "mnist5k_released.yaml").read_text()
    ocd("preset", "best", "mnist5k").refused("'best'", "paper, released")
    ocd("preset", "paper", "unknown").refused("unknown task 'unknown'")


def test_preset_of_another_domain(ocd, in_run):
    ocd("preset", "released", "toy").refused("images, views", "tests.support.toy:PlaneTask")
    assert "-S params/toy.yaml:diffusion.loss=norm" in ocd("preset", "paper", "toy", "--overrides").out
