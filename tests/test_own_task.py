"""docs/your-own-task.md: its code and its params, run as they stand there (with fewer updates)."""

import re
import sys
from importlib import import_module
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import torch
from ruamel.yaml import YAML

from ocd_core.artifacts import read_json
from ocd_core.config import Params, load_params
from ocd_core.samples import SPLITS
from ocd_core.tasks import domain_names, task_class
from ocd_core.weights import read_tensors
from tests.support.params import QUICK_PROBE
from tests.support.repository import REPO

PAGE = (REPO / "docs" / "your-own-task.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", PAGE, re.DOTALL)
FEWER = {
    "base": {"epochs": 3},
    "layer": {"probe": QUICK_PROBE},
    "scoring": {"samples": 8, "draws": 20},
    "diffusion": {"updates": 40, "validate_every": 20},
    "scale": {"updates": 40, "validate_every": 20},
    "evaluate": {"draws": [2], "bootstrap": 100},
    "controls": {
        "hypernetwork": {
            "widths": [16],
            "updates": 10,
            "batch_size": 16,
            "lrs": [1e-3],
            "ema": 0.0,
            "validate_every": 5,
            "patience": 5,
        }
    },
}


def page_rows() -> dict[str, Any]:
    """The params with which the page brings a row."""
    (text,) = [body for kind, body in BLOCKS if kind == "yaml" and "myrows:" in body]
    rows: dict[str, Any] = YAML(typ="safe", pure=True).load(text)
    return rows


def files() -> dict[str, str]:
    """The blocks that begin with a file's name, by name."""
    return {m[1]: body for _, body in BLOCKS if (m := re.match(r"# (\S+\.(?:py|yaml|toml))\n", body))}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A user's folder with the page's files in it, where Python finds `mydigits`."""
    (tmp_path / "params").mkdir()
    for name, body in files().items():
        (tmp_path / name).write_text(body, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for name in ("mydigits", "test_mydigits", "myrows"):
        sys.modules.pop(name, None)


def test_the_page_has_its_files() -> None:
    assert set(files()) == {"mydigits.py", "test_mydigits.py", "myrows.py", "params/digits.yaml", "pyproject.toml"}


def test_the_check_of_the_page_passes(folder: Path) -> None:
    import_module("test_mydigits").test_the_task_keeps_the_protocol(folder / "check")


def test_the_params_of_the_page_are_complete(folder: Path) -> None:
    raw = YAML(typ="safe", pure=True).load((folder / "params" / "digits.yaml").read_text())
    params = load_params("digits")
    assert {**params.model_dump(mode="json"), "data": params.data.model_dump(mode="json")} == raw


def test_the_stages_of_the_page_in_their_order(folder: Path) -> None:
    path = folder / "params" / "digits.yaml"
    values = YAML(typ="safe", pure=True).load(path.read_text())
    for group, changes in [*page_rows().items(), *FEWER.items()]:
        values[group].update(changes)
    with path.open("w") as file:
        YAML(typ="safe", pure=True).dump(values, file)
    commands = [line for kind, body in BLOCKS if kind == "bash" for line in body.splitlines() if "stages." in line]
    names = [re.fullmatch(r"python -m stages\.(\w+) --task digits", line)[1] for line in commands]
    assert names == list(YAML(typ="safe", pure=True).load(REPO / "dvc.yaml")["stages"])
    for name in names:
        import_module(f"stages.{name}").main("digits")
    prepared = folder / "data" / "digits" / "prepared"
    rows = {s: list(map(bytes, read_tensors(prepared / f"{s}.safetensors")["pixels"].numpy())) for s in SPLITS}
    assert read_json(prepared / "summary.json")["shared_rows"] == {
        f"{a}/{b}": sum(row in rows[a] for row in rows[b]) for a, b in combinations(SPLITS, 2)
    }
    table = (folder / "reports" / "digits" / "table.md").read_text()
    assert "overfitted on test" in table
    controls = folder / "data" / "digits" / "seed0" / "rank1" / "controls"
    chosen = read_json(controls / "metrics.json")["myrows:Temperature"]["temperature"]
    assert f"base network at temperature {chosen:g}" in table
    assert any("mydigits" in module for module in read_json(folder / "data" / "digits" / "code" / "overfit.json"))
    (predictor,) = [body for kind, body in BLOCKS if kind == "python" and "Predictor" in body]
    found: dict[str, object] = {}
    exec(predictor, found)
    assert found["prediction"].output.shape == (3, 10)
    assert torch.isfinite(found["prediction"].output).all()


def test_an_entry_point_gives_the_domain_a_name(folder: Path) -> None:
    (group, target), *_ = re.findall(r'entry-points\."(\S+)"\]\nmydigits = "(\S+)"', files()["pyproject.toml"])
    info = folder / "mydigits-1.0.dist-info"  # what an installer leaves of an installed package
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: mydigits\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[{group}]\nmydigits = {target}\n")
    assert domain_names()["mydigits"] == target
    assert task_class("mydigits") is import_module("mydigits").Digits
    path = folder / "params" / "digits.yaml"
    path.write_text(path.read_text().replace("domain: mydigits:Digits", "domain: mydigits"))
    params = load_params("digits")
    assert isinstance(params, Params)
    assert type(params.build_task()).__name__ == "Digits"
