"""The module `ocd_core.running.train_base`."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from ocd_core.artifacts import Artifacts, read_json, read_table
from ocd_core.errors import UserError
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


@pytest.mark.parametrize(
    ("network", "message"),
    [
        ({"name": "mlp", "args": {"in_features": 3, "out_features": 2, "hidden": [6]}}, "does not fit the data"),
        ({"name": "tests.network.test_fits:Centred", "args": {}}, "mixes the samples of a batch"),
    ],
)
def test_a_network_that_cannot_be_used_is_refused_before_it_is_trained(
    network: dict[str, Any], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "params").mkdir()
    with (tmp_path / "params" / "plane.yaml").open("w") as file:
        YAML().dump({**PLANE, "base": {**PLANE["base"], "model": network}}, file)
    lineage = Lineage.of("plane", root=tmp_path)
    prepare.run(lineage)
    monkeypatch.setattr(train_base, "fit_base", lambda *args, **kwargs: pytest.fail("it was trained"))
    with pytest.raises(UserError, match=rf"base\.model.*{message}"):
        train_base.run(lineage)
    assert not lineage.artifacts.base.exists()
