"""The command that fills a whole table: what it asks DVC for, and what it refuses."""

import subprocess

import pytest
from ruamel.yaml import YAML

from experiments import tables
from ocd_core.config import load_params, parse_params
from ocd_core.errors import UserError
from ocd_core.evaluation.rows import ROWS, row_class
from ocd_core.params_files import params_path, read_yaml
from ocd_core.presets.overrides import group_of
from tests.support.repository import REPO, files_in

TASKS = sorted(path.stem for path in files_in("params", ".yaml"))
SHIPPED = ["base", "base_further", "mean_delta", "neighbour", "ridge", "regression", "hypernetwork",
           "hypernetwork_pretrained", "hypernetwork_stochastic", "ocd_no_scale", "ocd", "ocd_gain", "ocd_mean_network",
           "ocd_ensemble", "ocd_tuned", "ocd_tuned_ensemble", "bound"]  # fmt: skip

OTHERS = ["base_further_augmented", "class_mean_delta", "deep_ensemble", "layer_further", "ocd_permuted",
          "random_delta", "tent", "weight_noise"]  # fmt: skip
FITTED = ["mean_delta", "base_further", "ridge", "regression", "hypernetwork", "hypernetwork_pretrained",
          "hypernetwork_stochastic", "ocd_gain"]  # fmt: skip


@pytest.fixture(autouse=True)
def in_the_repository(monkeypatch):
    monkeypatch.chdir(REPO)


def changed(task: str, **groups: dict) -> dict:
    """A task's file with other values in some groups."""
    values = read_yaml(params_path(task))
    for group, keys in groups.items():
        values[group].update(keys)
    return values


def params(task: str, **groups: dict):
    return parse_params(changed(task, **groups), "here")


def overrides(words: list[str]) -> dict[str, object]:
    """What the command sets, read as DVC reads it."""
    assert words[4::2] == ["--set-param"] * len(words[4::2])
    return {text.partition("=")[0]: YAML(typ="safe").load(text.partition("=")[2]) for text in words[5::2]}


def test_one_command_runs_everything_up_to_the_report():
    words = tables.command("mnist5k", "0,1,2", "auto", 5)
    assert words[:4] == ["dvc", "exp", "run", "report@mnist5k"]
    assert overrides(words) == {
        "tasks": ["tinynerf_demo", "mnist5k"],
        "seeds": [0, 1, 2],
        "layer_ranks": [1, 2],
        "params/mnist5k.yaml:evaluate.rows": [*SHIPPED[:-1], *OTHERS, "bound", "bound_all_layers"],
        "params/mnist5k.yaml:controls.fit": [*FITTED, *(name for name in OTHERS if row_class(name).fitted)],
        "params/mnist5k.yaml:evaluate.draws": [5],
    }  # fmt: skip


def test_a_task_is_appended_to_those_of_the_workspace(tmp_path, monkeypatch):
    (tmp_path / "params").symlink_to(REPO / "params")
    (tmp_path / "params.yaml").write_text("tasks: [mnist5k, mnist5k_paper]\nseeds: [4]\nlayer_ranks: [1]\n")
    monkeypatch.chdir(tmp_path)
    found = overrides(tables.command("tinynerf_demo", "3", "2", 7))
    assert found["tasks"] == ["mnist5k", "mnist5k_paper", "tinynerf_demo"]
    assert (found["seeds"], found["layer_ranks"]) == ([3], [2])
    assert found["params/tinynerf_demo.yaml:evaluate.draws"] == [7]
    assert overrides(tables.command("mnist5k", "3", "1", 5))["tasks"] == ["mnist5k", "mnist5k_paper"]


@pytest.mark.parametrize("task", TASKS)
def test_every_override_is_a_param_of_the_task(task):
    values = read_yaml(params_path(task))
    for key, value in tables.settings(load_params(task), 5).items():
        group, last = group_of(values, key)
        assert last in group
        group[last] = value
    found = parse_params(values, "here")
    groups = {name for name in ROWS.own() if row_class(name).Params is not None and name in values["controls"]}
    assert {*found.evaluate.rows} == groups | {name for name in ROWS.own() if row_class(name).Params is None}
    assert found.evaluate.rows[-1] == "bound_all_layers"


def test_the_order_of_the_file_is_kept():
    rows, fit = ["ocd", "bound", "base"], ["ocd_gain", "mean_delta"]
    found = tables.settings(params("mnist5k", evaluate={"rows": rows}, controls={"fit": fit}), 5)
    assert found["evaluate.rows"][0] == "ocd"
    assert found["evaluate.rows"][-3:] == ["bound", "base", "bound_all_layers"]
    assert found["controls.fit"][:2] == fit
    assert {*found["controls.fit"]} == {*FITTED, *(name for name in OTHERS if row_class(name).fitted)}
    without = tables.possible_rows(params("mnist5k", evaluate={"rows": ["base"]}))
    assert without[0] == "base"
    assert without[-2:] == ["bound", "bound_all_layers"]


def test_a_row_whose_params_are_missing_is_not_run():
    values = read_yaml(params_path("mnist5k"))
    del values["controls"]["tent"]
    found = tables.settings(parse_params(values, "here"), 5)
    assert "tent" not in [*found["evaluate.rows"], *found["controls.fit"]]


def test_the_second_rank_is_run_if_there_are_two_candidates(capsys):
    assert tables.candidate_layers(params("mnist5k")) == ["fc1", "fc2"]
    assert tables.candidate_layers(params("mnist5k", layer={"select": "conv2"})) == ["fc1", "fc2", "conv2"]
    assert tables.layer_ranks("mnist5k", params("mnist5k"), "auto") == [1, 2]
    assert capsys.readouterr().out == ""
    one = params("mnist5k", layer={"candidates": {"names": ["fc1"], "kinds": ["linear"]}})
    assert tables.layer_ranks("mnist5k", one, "auto") == [1]
    assert "rank 2 is left out: fc1 is the only candidate" in capsys.readouterr().out
    with pytest.raises(UserError, match=r"mnist5k has no layer of rank 2, since its candidates are fc1; lower the"):
        tables.layer_ranks("mnist5k", one, "1,2")


def test_mistakes_are_refused_before_anything_runs(monkeypatch):
    monkeypatch.setattr(subprocess, "run", None)
    with pytest.raises(UserError, match="unknown task 'nope'"):
        tables.main("nope")
    for seeds in ("", "0,x", "1,1", "0;1"):
        with pytest.raises(UserError, match="--seeds: expected different numbers from 0, separated by commas"):
            tables.main("mnist5k", seeds)
    with pytest.raises(UserError, match="--ranks: expected different numbers from 1"):
        tables.main("mnist5k", ranks="0")
