"""docs/your-own-table.md: its code and its params, run as they stand there (with fewer updates)."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from ocd_core.artifacts import read_json
from ocd_core.cli import app
from tests.support.params import QUICK_PROBE
from tests.support.repository import REPO
from tests.support.toy import run_stages

BLOCKS = re.findall(r"```(\w+)\n(.*?)```", (REPO / "docs" / "your-own-table.md").read_text(encoding="utf-8"), re.DOTALL)
FEWER: dict[str, dict[str, Any]] = {
    "base": {"epochs": 20},
    "layer": {"probe": QUICK_PROBE},
    "scoring": {"samples": 8, "draws": 20},
    "diffusion": {"updates": 40, "validate_every": 20},
    "scale": {"updates": 40, "validate_every": 20},
    "tuning": {"updates": 10, "lrs": [1e-3], "validate_every": 5},
    "evaluate": {"draws": [2, 3], "bootstrap": 100},
}
NETWORKS = ("regression", "hypernetwork", "hypernetwork_pretrained", "hypernetwork_stochastic")


def block(language: str) -> str:
    (found,) = [text for kind, text in BLOCKS if kind == language]
    return found


def read(text: str) -> dict[str, Any]:
    found: dict[str, Any] = YAML(typ="safe", pure=True).load(text)
    return found


@pytest.fixture
def params(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The page's files in a folder."""
    monkeypatch.chdir(tmp_path)
    exec(block("python"), {})
    values = read((REPO / "params" / "california.yaml").read_text())
    assert values.keys() >= read(block("yaml")).keys()
    values |= read(block("yaml"))
    for group, changes in FEWER.items():
        values[group].update(changes)
    values["controls"]["ridge"]["rows"] = 100
    for row in NETWORKS:
        values["controls"][row].update(updates=20, lrs=[1e-3], validate_every=10)
    values["controls"]["hypernetwork_pretrained"]["regression"]["updates"] = 20
    (tmp_path / "params").mkdir()
    path = tmp_path / "params" / "diabetes.yaml"
    with path.open("w") as file:
        YAML(typ="safe", pure=True).dump(values, file)
    return path


def test_the_page_from_its_first_line_to_its_last(params: Path, tmp_path: Path, capsys: Any) -> None:
    run_stages("report", "diabetes")
    run = tmp_path / "data" / "diabetes"
    summary = read_json(run / "prepared" / "summary.json")
    assert {name: split["samples"] for name, split in summary["splits"].items()} == {
        "train": 282,
        "val": 60,
        "test": 100,
    }
    names = read_json(run / "prepared" / "features.json")["names"]
    assert names == ["age", "bmi", "bp", "s1", "s2", "s3", "s4", "s5", "s6", "sex = 1.0", "sex = 2.0"]
    metrics = read_json(run / "seed0" / "rank1" / "evaluation" / "metrics.json")
    assert {"deep_ensemble", "mc_dropout", "mean_variance", "ocd_ensemble_3"} <= metrics.keys()
    assert 40 < metrics["base"]["rmse"] < 90  # the deviation of the target is 77
    lines = (tmp_path / "data" / "raw" / "diabetes" / "patients.csv").read_text().splitlines()
    (tmp_path / "patient.csv").write_text("\n".join([*lines[:2], ""]))
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        app(["predict", "diabetes", "patient.csv", "--draws", "3"])
    assert stop.value.code in (0, None)
    shown = capsys.readouterr().out
    answer = json.loads(shown)
    for who in ("base", "ocd"):
        assert 25 < answer[who]["value"] < 346  # the range of the target
