"""Verdicts beside outcomes: what counts as a case, and thresholds that are chosen on other tasks."""

import subprocess
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from experiments import verdicts
from experiments.verdicts import Case, case_table, cases, chosen, chosen_on_others, confusion, settings
from ocd_core.artifacts import Artifacts, write_json, write_table
from ocd_core.config import parse_params
from ocd_core.errors import UserError
from ocd_core.params_files import params_path, read_yaml
from ocd_core.presets.overrides import group_of
from ocd_core.probing.diagnosis import THRESHOLDS, Diagnosis, Thresholds
from ocd_core.probing.probe import Probe
from tests.probing.test_diagnosis import GAIN, NONE
from tests.support.repository import REPO
from tests.support.tables import result, table


def case(probe: Probe = GAIN, change: float = -0.03, p: float = 0.001, task: str = "t") -> Case:
    return Case(task, 0, probe.layer, Diagnosis([probe], probe.layer, None), probe, change, p)


UNSURE = replace(NONE, low=-0.1, high=0.1)


@pytest.mark.parametrize(
    ("probe", "change", "p", "agreement"),
    [
        (GAIN, -0.03, 0.001, "right"),
        (GAIN, -0.004, 0.001, "wrong"),  # too small
        (GAIN, -0.03, 0.06, "wrong"),  # may be chance
        (GAIN, 0.03, 0.001, "wrong"),
        (NONE, 0.03, 0.001, "right"),
        (NONE, 0.0, 1.0, "right"),
        (NONE, -0.03, 0.001, "wrong"),
        (replace(NONE, bound=1.1), -0.03, 0.001, "wrong"),  # no gap
        (UNSURE, -0.03, 0.001, "cannot tell"),
        (UNSURE, 0.0, 1.0, "cannot tell"),
    ],
)
def test_a_verdict_is_right_if_it_came_true(probe: Probe, change: float, p: float, agreement: str) -> None:
    assert case(probe, change, p).agreement(THRESHOLDS) == agreement


def write_run(root: Path, seed: int, rank: int, layer: str, results: list[Any], metrics: list[dict[str, Any]]) -> None:
    run = Artifacts("toy", seed, rank, root)
    found = table(results=results, seed=seed, rank=rank, layer=layer, metrics=metrics)
    write_json(run.evaluation / "table.json", found)


def test_cases_are_read_from_the_workspace(tmp_path: Path) -> None:
    write_table(Artifacts("toy", 0, root=tmp_path).diagnosis / "layers.tsv", [asdict(GAIN), asdict(NONE)])
    rmse = [
        result("base", 2.0),
        result("ocd_ensemble", 1.9, p=0.5),
        result("base", 4.0, metric="mse"),
        result("ocd_ensemble", 3.0, metric="mse", p=0.9),
        result("ocd_tuned_ensemble", 3.8, metric="mse", p=0.01),
        result("ocd_tuned_ensemble", 1.0, metric="mse", p=0.01, temperature=2.0),
    ]
    metrics = [{"name": "rmse", "higher_is_better": False}, {"name": "mse", "higher_is_better": False}]
    write_run(tmp_path, 0, 1, "b", rmse, metrics)
    decibels = [{"name": "si_sdr", "higher_is_better": True}]
    louder = [result("base", 10.0, metric="si_sdr"), result("ocd_ensemble", 11.0, metric="si_sdr", p=0.2)]
    write_run(tmp_path, 0, 2, "a", louder, decibels)
    write_run(tmp_path, 0, 3, "not probed", rmse, metrics)
    write_run(tmp_path, 1, 1, "b", rmse, metrics)  # without a diagnosis
    found = cases(tmp_path)
    assert [(c.task, c.seed, c.layer) for c in found] == [("toy", 0, "a"), ("toy", 0, "b")]
    assert [c.change for c in found] == pytest.approx([-0.1, -0.05])
    assert [c.p for c in found] == [0.2, 0.01]
    assert [c.verdict(THRESHOLDS) for c in found] == ["likely", "unlikely"]
    assert len(found[0].diagnosis.probes) == 2  # the correction counts both
    with pytest.raises(UserError, match="verdicts run TASK"):
        cases(tmp_path / "elsewhere")


def test_thresholds_are_chosen_on_the_other_tasks_alone() -> None:
    """In task a, gains of .8 % that the probes predict do not come true; in b and c they do."""
    small = replace(GAIN, change=-0.009, low=-0.012, high=-0.006)
    nothing = case(small, change=0.0, p=1.0, task="a")
    others = [case(small, task=task) for task in ("b", "c")]
    assert chosen([nothing]).change == 0.01
    assert chosen(others) == THRESHOLDS  # the first of equals
    thresholds = chosen_on_others([nothing, *others])
    assert thresholds(nothing) == THRESHOLDS
    # of a wrong and a right one: neither is worth a verdict, so they are left open
    assert (thresholds(others[0]).change, thresholds(others[0]).worth) == (0.01, 0.005)
    ten = [replace(case(small, task="b"), seed=seed) for seed in range(10)]
    assert chosen([nothing, *ten[:8]]).change == 0.01  # eight right verdicts do not make up for a wrong one
    assert chosen([nothing, *ten]) == THRESHOLDS
    with pytest.raises(UserError, match="only a has cases"):
        chosen_on_others([nothing])


def test_the_groups_of_the_judged_samples_are_shown() -> None:
    assert "| 100 |" in case_table([case()])
    assert "| 100 of 7 groups |" in case_table([case(replace(GAIN, val_groups=7))])


def test_the_tables() -> None:
    found = [case(), case(NONE, 0.0, 0.7), case(NONE, -0.03, 0.001), case(UNSURE, 0.0, 1.0)]
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in case_table(found).splitlines()]
    assert lines[2][:6] == ["t", "`a`", "0", "likely", "yes", "✓"]
    assert lines[2][6:] == ["-4.5 %", "-5.5 % to -3.6 %", "100", "-3.0 %", ".001"]
    assert [line[5] for line in lines[2:]] == ["✓", "✓", "✗", "–"]
    text = confusion(found, lambda _: THRESHOLDS)
    for line in ("| likely | 1 | 0 |", "| cannot tell | 0 | 1 |", "| unlikely | 1 | 1 |", "| no gap | 0 | 0 |"):
        assert line in text
    # Wilson's interval of 2 in 3 by hand: (p + z²/2n ± z √(p(1-p)/n + z²/4n²)) / (1 + z²/n)
    assert "2 of 3 verdicts came true, 67 % (95 % interval 21 % to 94 %); 1 of 4 cases were left open." in text
    assert "Nothing was decided" in confusion([case(UNSURE)], lambda _: THRESHOLDS)
    strict = Thresholds(change=0.1)
    assert "| cannot tell | 1 | 1 |" in confusion(found, lambda _: strict)


@pytest.mark.parametrize("task", ["mnist5k", *verdicts.OWN])
def test_the_settings_of_every_task_are_possible(task: str) -> None:
    values = read_yaml(params_path(task, REPO))
    for key, value in settings(task).items():
        group, last = group_of(values, key)
        assert last in group, key
        group[last] = value
    parse_params(values, task)


def test_one_experiment_makes_diagnosis_and_outcomes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(REPO)
    ran: list[list[str]] = []
    monkeypatch.setattr(subprocess, "run", lambda words, check: ran.append(words))
    verdicts.run("california", "0,1")
    (words,) = ran
    assert words[:5] == ["dvc", "exp", "run", "evaluate", "diagnose"]
    assert "layer_ranks=[1,2]" in words
    assert "seeds=[0,1]" in words
    assert "params/california.yaml:data.train_size=3000" in words
