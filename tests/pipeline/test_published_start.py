"""What a base network replaced in published weights is said with its results."""

from pathlib import Path

import pytest
from ruamel.yaml import YAML

from ocd_core.artifacts import read_json
from ocd_core.models.mlp import MLP
from tests.support.toy import PLANE, run_stages

NOTE = "Weights of a publication, whose head was replaced."


class PublishedMLP(MLP):
    def load_pretrained(self) -> list[str]:
        return [NOTE]


def test_the_note_reaches_the_results(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    base = {**PLANE["base"], "model": {**PLANE["base"]["model"], "name": f"{__name__}:PublishedMLP"}}
    (tmp_path / "params").mkdir()
    with (tmp_path / "params" / "toy.yaml").open("w") as file:
        YAML().dump({**PLANE, "base": base}, file)
    monkeypatch.chdir(tmp_path)
    run_stages("evaluate")
    run = tmp_path / "data" / "toy" / "seed0"
    assert f"note: {NOTE}" in capsys.readouterr().err
    assert read_json(run / "base" / "metrics.json")["notes"] == [NOTE]
    assert NOTE in read_json(run / "rank1" / "evaluation" / "table.json")["remarks"]
