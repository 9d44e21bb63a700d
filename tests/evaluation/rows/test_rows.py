"""The registry: a file is a row; a user's row by entry point, through the stages."""

import sys
from importlib import import_module
from pathlib import Path

import pytest

from ocd_core.artifacts import Artifacts, read_json
from ocd_core.config import load_params
from ocd_core.errors import UserError
from ocd_core.evaluation import rows
from ocd_core.evaluation.row import FittedRow, Row
from ocd_core.evaluation.rows import ROWS, row_class
from ocd_core.stage_code import stage_code
from tests.support.toy import run_stages, write_toy_params

OURS = [path.stem for path in Path(rows.__file__).parent.glob("*.py") if path.stem != "__init__"]
ADDED = """
from ocd_core.evaluation.rows.base import Base


class Added(Base):
    title = "added"


ROW = Added
"""
NOISE = """
from typing import Annotated, Any

import torch
from pydantic import Field

from ocd_core.evaluation.row import Fit, FittedRow, MovedRow
from ocd_core.strict import StrictModel


class NoiseParams(StrictModel):
    lengths: Annotated[list[float], Field(min_length=1)]


class Noise(MovedRow, FittedRow):
    # the layer moved at random, by the shortest of some lengths
    Params = NoiseParams

    @property
    def title(self) -> str:
        return f"noise of length {self.length:g}"

    def fit(self, fitting: Any) -> Fit:
        self.network = torch.nn.Linear(2, 1)
        assert len(fitting.split("val")) == 16
        self.length = min(self.params.lengths)
        return Fit({"length": self.length}, [{"length": c} for c in self.params.lengths])

    def config(self) -> dict[str, Any]:
        return {"length": self.length}

    def tensors(self) -> dict[str, torch.Tensor]:
        return self.network.state_dict()

    def load(self, saved: Any) -> None:
        saved.load_into(torch.nn.Linear(2, 1))
        self.length = saved.config["length"]

    def move(self, shared: Any) -> torch.Tensor:
        generator = torch.Generator().manual_seed(int(shared.batch.sample_id[0]))
        noise = torch.randn(len(shared), *self.context.predictor.model.weight_OI.shape, generator=generator)
        return self.length * noise / noise.flatten(1).norm(dim=1)[:, None, None]
"""


@pytest.fixture
def forget():
    """Modules that a test put there are gone afterwards."""
    before = set(sys.modules)
    yield
    for name in set(sys.modules) - before:
        if name.split(".")[0] == "mypackage_of_rows" or name.endswith("rows.added"):
            del sys.modules[name]


def test_every_file_is_a_row() -> None:
    assert ROWS.own() == sorted(OURS)
    assert "base" in OURS
    for name in OURS:
        assert issubclass(row_class(name), Row)
        assert row_class(name).fitted == issubclass(row_class(name), FittedRow)


def test_only_bounds_see_labels() -> None:
    assert {name for name in OURS if row_class(name).sees_labels} == {"bound", "bound_all_layers"}


@pytest.mark.usefixtures("forget")
def test_a_file_that_is_added_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "added.py").write_text(ADDED)
    with pytest.raises(UserError, match="unknown row 'added'"):
        row_class("added")
    monkeypatch.setattr(rows, "__path__", [*rows.__path__, str(tmp_path)])
    assert "added" in ROWS.names()
    assert row_class("added").title == "added"


@pytest.mark.usefixtures("forget")
@pytest.mark.parametrize("name", ["noise", "mypackage_of_rows.rows:Noise"])
def test_a_users_row_runs_through_the_stages(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "mypackage_of_rows"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "rows.py").write_text(NOISE)
    info = tmp_path / "mypackage_of_rows-1.0.dist-info"  # what an installer leaves of an installed package
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: mypackage_of_rows\nVersion: 1.0\n")
    points = ["noise = mypackage_of_rows.rows:Noise", "base = mypackage_of_rows.rows:Noise"]
    (info / "entry_points.txt").write_text("\n".join(["[ocd.rows]", *points, ""]))
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    write_toy_params(
        tmp_path,
        controls={"fit": [name, "ridge"], name: {"lengths": [0.5, 0.25]}},
        evaluate={"rows": [name, "base", "ridge", "bound"]},
    )
    run_stages("report")
    run = Artifacts("toy", root=tmp_path)
    assert read_json(run.controls / "metrics.json")[name] == {"length": 0.25}
    table = {r["row"]: r for r in read_json(run.evaluation / "table.json")["results"]}
    assert list(table) == [name, "base", "ridge", "bound"]
    assert table[name]["title"] == "noise of length 0.25"
    assert table[name]["mean"] != table["base"]["mean"]
    assert table["base"]["title"] == "base network"  # ours cannot be hidden
    assert "noise of length 0.25" in (run.report / "table.md").read_text()
    params = load_params("toy")
    assert params.controls.of_row(name).lengths == [0.5, 0.25]
    code = stage_code("evaluate", params.plain())
    assert {"mypackage_of_rows.rows", "ocd_core.evaluation.rows.ridge"} <= code.keys()
    assert "ocd_core.evaluation.rows.neighbour" not in code
    assert import_module("mypackage_of_rows.rows").Noise is row_class(name)
