"""The ranking of candidates by their probes, and the stage that uses it."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from ocd_core.artifacts import Artifacts, read_json, read_table
from ocd_core.errors import UserError
from ocd_core.params_files import read_yaml
from ocd_core.probing.layers import COLUMNS, no_gain, probe_layers, probe_table, probes_of_table
from ocd_core.probing.probe import Probe
from tests.probing.test_probe import OVERFIT, PARAMS, splits
from tests.support.arrays import ArrayTask
from tests.support.toy import run_stages, write_toy_params

ONE = Probe(
    "a", 20, 20, 3, 1.0, 1.1, 0.5, 0.1, 0.1, 0.3, 0.4, 0.25, 0.35, "kernel", 1.0, -0.2, -0.3, -0.1, -4.0, 20, 5_000
)


def test_the_layer_that_lowers_the_loss_most_is_first() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 3))
    train, val = splits(model, 1.0, 0.1)
    found = probe_layers(model, ArrayTask(), train, val, ["1", "0"], OVERFIT, PARAMS, seed=0)
    assert [p.change for p in found] == sorted(p.change for p in found)
    assert {p.layer for p in found} == {"0", "1"}
    assert found[0].high < 0


def test_a_layer_that_cannot_be_probed_is_left_out_and_none_is_an_error() -> None:
    network = nn.Sequential(nn.Linear(4, 3))
    train, val = splits(network, 1.0, 0.1)
    with pytest.warns(UserWarning, match="layer 'missing' is left out"):
        found = probe_layers(network, ArrayTask(), train, val, ["missing", "0"], OVERFIT, PARAMS, seed=0)
    assert [p.layer for p in found] == ["0"]
    with pytest.warns(UserWarning, match="left out"), pytest.raises(UserError, match="none of the candidates missing"):
        probe_layers(network, ArrayTask(), train, val, ["missing"], OVERFIT, PARAMS, seed=0)


def test_no_gain_is_said() -> None:
    assert no_gain([ONE]) is None
    warning = no_gain([replace(ONE, change=0.01, low=-0.1, high=0.12, z=0.2)])
    assert warning is not None
    assert "a" in warning
    assert "+0.01" in warning


def test_the_best_of_many_layers_needs_a_larger_gain() -> None:
    """z of −2.2 with 20 samples: two-sided p .040 alone, and .32 after Bonferroni over eight layers."""
    chance = replace(ONE, z=-2.2)
    assert no_gain([chance]) is None
    assert no_gain([chance] * 8) is not None
    assert no_gain([replace(ONE, z=-4.0)] * 8) is None


def test_the_table_has_every_column() -> None:
    (row,) = probe_table([ONE], {"a": 2, "b": 1})
    assert tuple(row) == COLUMNS
    assert (row["rank"], row["score_rank"]) == (1, 2)


def test_a_table_gives_its_probes_back() -> None:
    two = [ONE, replace(ONE, layer="b", change=0.1)]
    rows = [{name: str(value) for name, value in row.items()} for row in probe_table(two, {"a": 2, "b": 1})]
    assert probes_of_table(rows) == two
    with pytest.raises(UserError, match=r"table of probes is damaged .*'r2'.*dvc repro"):
        probes_of_table([{k: v for k, v in rows[0].items() if k != "r2"}])


@pytest.mark.parametrize("select", ["validated", "entropy"])
def test_the_stage_uses_the_probes_order_only_if_asked(select, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    probe = {"samples": 20, "components": 3, "updates": 50}
    everywhere = {"representation": {"name": "pca", "components": 3, "metric": "euclidean"}}
    write_toy_params(Path(), layer={"select": select, "probe": probe}, diffusion=everywhere)
    run_stages(upto="score_layers")
    layers = Artifacts("toy").layers
    report, table = read_json(layers / "layers.json"), read_table(layers / "probes.tsv")
    if select == "entropy":
        assert table == []
        assert (layers / "probes.tsv").read_text().split() == list(COLUMNS)
        return
    assert len(table) > 1
    assert [row["layer"] for row in table] == list(report["used"].values())
    changes = [float(row["change"]) for row in table]
    assert changes == sorted(changes)
    assert report["warning"] is None
    by_score = {score["name"]: str(score["rank"]) for score in report["scores"]}
    assert [row["score_rank"] for row in table] == [by_score[row["layer"]] for row in table]  # both rankings


@pytest.mark.parametrize(("names", "count"), [(None, 1), (["embed", "head"], 2)])
def test_the_first_ranks_are_probed_and_all_that_are_named(names, count, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("ocd_core.running.score_layers.LAYERS", 1)
    layer = {"select": "validated", "probe": {"samples": 20, "components": 3, "updates": 50}}
    everywhere = {"representation": {"name": "pca", "components": 3, "metric": "euclidean"}}
    candidates = {"names": names, "kinds": ["linear"]}
    write_toy_params(Path(), layer={**layer, "candidates": candidates}, diffusion=everywhere)
    run_stages(upto="score_layers")
    layers = Artifacts("toy").layers
    probed = [row["layer"] for row in read_table(layers / "probes.tsv")]
    scored = {score["name"]: score["rank"] for score in read_json(layers / "layers.json")["scores"]}
    assert len(probed) == count
    assert names or scored[probed[0]] == 1


def test_layers_that_other_params_rule_out_are_not_probed(tmp_path, monkeypatch, capsys) -> None:
    """`factored` is exact for the head, which sees one vector, and not for the embedding of three points."""
    monkeypatch.chdir(tmp_path)
    layer = {"select": "validated", "probe": {"samples": 20, "components": 3, "updates": 50}}
    write_toy_params(Path(), layer=layer)
    assert read_yaml(Path("params/toy.yaml"))["diffusion"]["representation"]["name"] == "factored"
    run_stages(upto="score_layers")
    assert (
        "layer 'embed' is not probed: diffusion.representation.name: factored is not exact" in capsys.readouterr().err
    )
    assert [row["layer"] for row in read_table(Artifacts("toy").layers / "probes.tsv")] == ["head"]
    names = {"names": ["embed"], "kinds": ["linear"]}
    write_toy_params(Path(), layer={**layer, "candidates": names})
    with pytest.raises(UserError, match="no candidate that the other params allow"):
        run_stages(upto="score_layers")
