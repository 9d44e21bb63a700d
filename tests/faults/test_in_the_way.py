"""A file, a pipe or a link where the folder of a stage must be: it is named, and the stage mends it."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from ocd_core.artifacts import Artifacts, read_json, write_json
from ocd_core.errors import UserError
from ocd_core.provenance import Lineage
from ocd_core.running.runner import run_stages, stage_states

PUT: dict[str, Callable[[Path], None]] = {
    "file": lambda path: path.write_text("x") and None,
    "pipe": lambda path: os.mkfifo(path),
    "link to nothing": lambda path: path.symlink_to("nowhere"),
}


@pytest.fixture
def run(toy_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Artifacts:
    shutil.copytree(toy_run, tmp_path / "project")
    monkeypatch.chdir(tmp_path / "project")
    return Artifacts("toy")


@pytest.mark.timeout(120)
@pytest.mark.parametrize("kind", PUT)
def test_a_stage_mends_what_has_the_place_of_its_folder(run: Artifacts, kind: str) -> None:
    shutil.rmtree(run.layers)
    PUT[kind](run.layers)
    lineage = Lineage.of("toy")
    states = {state.stage: state for state in stage_states(lineage) if not state.split}
    assert states["score_layers"].why in ("it is not a folder", "it is missing")
    with pytest.raises(UserError, match=r"layers is (not a folder|missing); run 'dvc repro' or 'python -m stages"):
        lineage.read("layers")
    assert run_stages(lineage, ("score_layers",)) == ["score_layers"]
    assert lineage.outdated("layers") is None
    assert run_stages(lineage, ("score_layers",)) == []


@pytest.mark.timeout(120)
@pytest.mark.parametrize("kind", ["file", "pipe"])
def test_what_is_no_folder_is_named(tmp_path: Path, kind: str) -> None:
    PUT[kind](tmp_path / "base")
    with pytest.raises(UserError, match=r"manifest\.json is missing, because .*base is no folder; delete it and run"):
        read_json(tmp_path / "base" / "manifest.json")
    for path in (tmp_path / "base" / "x.json", tmp_path / "base" / "deep" / "x.json"):
        with pytest.raises(UserError, match="base is not a folder, which must be there; move it or delete it"):
            write_json(path, {})
