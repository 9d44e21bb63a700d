"""The module `ocd_core.running.diagnose`."""

import shutil
from pathlib import Path

import pytest

from ocd_core.artifacts import Artifacts, read_json, read_table
from ocd_core.probing import probe
from ocd_core.provenance import Lineage
from ocd_core.running import diagnose, score_layers
from ocd_core.timing import read_seconds


def test_the_diagnosis_of_a_run(plane_run: Artifacts) -> None:
    folder = plane_run.diagnosis
    metrics, rows = read_json(folder / "metrics.json"), read_table(folder / "layers.tsv")
    used = read_json(plane_run.layers / "layers.json")["used"]
    assert {row["layer"] for row in rows} == set(used.values())
    assert metrics["layers"] == {row["layer"]: row["verdict"] for row in rows}
    assert metrics["verdict"] == rows[0]["verdict"]
    assert metrics["temperature"]["value"] > 0
    text = (folder / "verdict.md").read_text(encoding="utf-8")
    assert text.startswith("**")
    assert (folder / "diagnosis.png").read_bytes().startswith(b"\x89PNG")
    assert read_seconds(plane_run, "diagnose") is not None


def test_it_repeats_bit_for_bit(plane_run: Artifacts, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(plane_run.root, tmp_path / "copy"))
    lineage = Lineage.of("plane", root=copy)
    diagnose.run(lineage)
    for path in plane_run.diagnosis.iterdir():
        assert (lineage.artifacts.diagnosis / path.name).read_bytes() == path.read_bytes(), path.name


def test_probes_of_the_selection_repeat_bit_for_bit_and_are_taken_over(
    plane_run: Artifacts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = Path(shutil.copytree(plane_run.root, tmp_path / "copy"))
    params = copy / "params" / "plane.yaml"
    text = params.read_text()
    assert text.count("select: layers.0") == 1
    params.write_text(text.replace("select: layers.0", "select: validated"))
    lineage = Lineage.of("plane", root=copy)
    made = []
    for _ in range(2):
        score_layers.run(lineage)
        made.append({path.name: path.read_bytes() for path in lineage.artifacts.layers.iterdir()})
    assert made[0] == made[1]
    monkeypatch.setattr(probe, "RowBuilder", None)  # what overfits
    diagnose.run(lineage)
    rows = read_table(lineage.artifacts.diagnosis / "layers.tsv")
    again = read_table(plane_run.diagnosis / "layers.tsv")
    assert [row["layer"] for row in rows] == [row["layer"] for row in again]
    for row, other in zip(rows, again, strict=True):
        assert float(row["change"]) == pytest.approx(float(other["change"]), rel=1e-6, abs=1e-12)
