"""Files whose hashes are right, since anybody can make them, but which hold something else: one line names the file."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from ocd_core.artifacts import Artifacts, read_json, write_json
from ocd_core.errors import UserError
from ocd_core.predictor import Predictor
from ocd_core.report.results import run_tables
from ocd_core.report.run_export import export_run
from ocd_core.report.run_report import write_report
from tests.support.runs import reseal

ANY = [{}, [], None, "x", 3]


@pytest.fixture
def run(toy_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Artifacts:
    shutil.copytree(toy_run, tmp_path / "project")
    monkeypatch.chdir(tmp_path / "project")
    return Artifacts("toy")


def forge(path: Path, values: Any) -> None:
    write_json(path, values)
    reseal(path.parent)


@pytest.mark.parametrize(
    "values", [*ANY, {"used": {}}, {"used": []}, {"used": {"1": 7}}, {"used": {"2": "head"}}, {"used": {"1": "fc9"}}]
)
def test_layers(run: Artifacts, values: Any) -> None:
    forge(run.layers / "layers.json", values)
    named = r"'fc9'" if values == {"used": {"1": "fc9"}} else r"layers/layers\.json is damaged: "
    for use in (lambda: Predictor.from_artifacts(run.rank_dir), lambda: export_run(run.rank_dir, "bundle")):
        with pytest.raises(UserError, match=named):
            use()


CHANGES: list[dict[str, Any]] = [
    {"results": []}, {"results": [{}]}, {"metrics": []}, {"metrics": [{}]}, {"layer": 3}, {"seed": "0"}, {"task": None},
    {"seed": -1}, {"remarks": [1]}, {"absent": [{"row": "x"}]}, {"bound_parts": []}, {"groups": "all"},
]  # fmt: skip


@pytest.mark.parametrize("values", [*ANY, *CHANGES])
def test_tables(run: Artifacts, values: Any) -> None:
    path = run.evaluation / "table.json"
    forge(path, {**read_json(path), **values} if values in CHANGES else values)
    for use in (run_tables, write_report):
        with pytest.raises(UserError, match=r"evaluation/table\.json is damaged: "):
            use("toy")
    with pytest.raises(UserError, match=r"evaluation/table\.json is damaged: "):
        export_run(run.rank_dir, "bundle")


@pytest.mark.parametrize("rows", [{"base": None}, {"temperature": 2.0}])
def test_a_table_without_what_rows_are_compared_with(run: Artifacts, rows: dict[str, Any]) -> None:
    path = run.evaluation / "table.json"
    table = read_json(path)
    if "base" in rows:
        table["results"] = [r for r in table["results"] if r["row"] != "base"]
    else:
        table["results"][-1] |= rows
    forge(path, table)
    with pytest.raises(
        UserError, match=r"table\.json is damaged: (it has no rmse of the base|rows have a temperature)"
    ):
        write_report("toy")


@pytest.mark.parametrize("file", ["prepared/summary.json", "evaluation/memorisation.json"])
def test_other_files_of_a_report(run: Artifacts, file: str) -> None:
    folder, name = file.split("/")
    forge(run.path(folder) / name, [3])
    with pytest.raises(UserError, match="toy was written by another version: "):
        write_report("toy")
    assert not run.report.exists()
