"""`ocd tasks`, `ocd run` and `ocd status`."""

import json
import shutil
import sys

from ocd_core.pipeline import STAGES
from tests.running.conftest import write_plane


def test_tasks_as_json(ocd, in_run) -> None:
    found = json.loads(ocd("tasks", "--json").out)
    assert "images" in found["domains"]
    broken, toy = found["tasks"]
    assert "unknown domain 'nothing'" in broken["error"]
    assert toy == {"task": "toy", "domain": "tests.support.toy:PlaneTask", "model": "mlp", "layer": "layers.0"}


def test_status_says_what_is_done_and_why_the_rest_is_not(ocd, toy_run, tmp_path, monkeypatch) -> None:
    shutil.copytree(toy_run, tmp_path / "run")
    monkeypatch.chdir(tmp_path / "run")
    shutil.rmtree("data/toy/seed0/rank1/scale")
    found = {stage["stage"]: stage for stage in json.loads(ocd("status", "toy", "--json").out)}
    assert set(found) == set(STAGES)
    assert (found["train_diffusion"]["state"], found["train_diffusion"]["why"]) == ("done", "")
    assert (found["train_scale"]["state"], found["train_scale"]["why"]) == ("missing", "it is missing")
    shown = ocd("status", "toy")
    assert "train_scale" in shown.out
    assert shown.status == 0


def test_run_goes_up_to_a_stage_and_then_on(ocd, tmp_path, monkeypatch) -> None:
    write_plane(tmp_path)
    monkeypatch.chdir(tmp_path)
    ocd("run", "plane", "--upto", "train_bse").refused("--upto train_bse: there is no such stage", "train_base")
    assert "prepare: it is missing" in ocd("run", "plane", "--upto", "prepare").err
    done = ocd("run", "plane", "--upto", "train_base")
    assert "prepare: up to date" in done.err
    assert (tmp_path / "data/plane/seed0/base/model.safetensors").is_file()
    ocd("run", "plain").refused("unknown task 'plain'")


def test_a_new_task_is_checked_and_ready(ocd, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "160")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sys.path", list(sys.path))
    assert ocd("new", "mine").status == 2  # without a domain
    done = ocd("new", "mine", "--domain", "freshdomain:Mine", "--class")
    assert done.out.split() == ["params/mine.yaml", "freshdomain.py", "test_freshdomain.py"]
    found = ocd("check", "mine")
    assert found.status == 0, found.err
    assert "train: 400 samples" in found.out
    assert "layers.0" in found.out
    assert json.loads(ocd("check", "mine", "--json").out)["samples"]["test"] == 400
    assert ocd("run", "mine", "--upto", "train_base").status == 0
