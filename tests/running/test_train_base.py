"""The module `ocd_core.running.train_base`."""

import shutil
from pathlib import Path

from ruamel.yaml import YAML

from ocd_core.artifacts import Artifacts, read_json, read_table
from ocd_core.provenance import Lineage
from ocd_core.running import prepare, train_base
from tests.support.toy import PLANE


def test_the_best_epoch_of_the_curve_is_kept(plane_run: Artifacts) -> None:
    losses = [float(row["val_loss"]) for row in read_table(plane_run.base / "curve.tsv")]
    assert read_json(plane_run.base / "metrics.json")["val_loss"] == min(losses)


def test_the_bar_of_given_weights_ends_full_and_says_why(plane_run: Artifacts, tmp_path: Path, capsys) -> None:
    (tmp_path / "params").mkdir()
    given = tmp_path / "given.safetensors"
    shutil.copyfile(plane_run.base / "model.safetensors", given)
    with (tmp_path / "params" / "plane.yaml").open("w") as file:
        YAML().dump({**PLANE, "base": {**PLANE["base"], "checkpoint": str(given)}}, file)
    lineage = Lineage.of("plane", root=tmp_path)
    prepare.run(lineage)
    capsys.readouterr()
    train_base.run(lineage)
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "2/2" in line
    assert line.endswith("given weights")
    assert (lineage.artifacts.base / "model.safetensors").read_bytes() == given.read_bytes()
