"""The module `ocd_core.running.score_layers`."""

import shutil
from pathlib import Path

from ocd_core.artifacts import Artifacts, read_json
from ocd_core.provenance import Lineage
from ocd_core.running import score_layers


def test_a_named_layer_is_the_one_used(plane_run: Artifacts) -> None:
    assert read_json(plane_run.layers / "layers.json")["used"]["1"] == "layers.0"


def test_the_bar_does_not_end_on_the_layer_that_was_scored_last(plane_run: Artifacts, tmp_path: Path, capsys) -> None:
    shutil.copytree(plane_run.root, tmp_path / "copy")
    score_layers.run(Lineage.of("plane", root=tmp_path / "copy"))
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("score layers")
    assert "layers." not in line
