"""Draws of the shots: what is queued, and the tables of hand-made numbers."""

from typing import Any

import pytest

from experiments import few_shots
from ocd_core.errors import UserError
from tests.support.repository import REPO


@pytest.fixture(autouse=True)
def in_the_repository(monkeypatch):
    monkeypatch.chdir(REPO)


def entry(task: str, draw: int, rows: dict[str, Any], status: str = "success") -> dict[str, Any]:
    metrics = {f"data/{task}/seed0/rank1/evaluation/metrics.json": {"n": 5, **rows}, "other.json": {"n": 1}}
    return {"name": f"few-shots--{task}--{draw}", "status": status, "metrics": metrics}


def rows(accuracy: float, loss: float, mcc: float | None = None) -> dict[str, Any]:
    values = {"accuracy": accuracy, "cross_entropy": loss, "mcc": mcc}
    return {"base": values, "ocd": {**values, "cross_entropy": loss + 1}}


ENTRIES = [
    entry("cr", 1, rows(60, 0.5)),
    entry("cr", 0, rows(64, 0.7)),
    entry("cr", 2, rows(1, 9), status="failed"),
    entry("amazon_counterfactual_en", 0, rows(10, 0.2, 20.0)),
    entry("amazon_counterfactual_en", 1, rows(20, 0.4)),  # mcc is not defined
    {"name": "cr--default", "status": "success", "metrics": {}},
    {"name": None, "status": "success", "metrics": {}},
]
METRICS = {"cr": ("accuracy", "%"), "amazon_counterfactual_en": ("mcc", "%")}


def draws() -> dict[str, list[Any]]:
    return {task: few_shots.finished(task, ENTRIES) for task in METRICS}


def cells(table: str) -> dict[str, list[str]]:
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
    return {line[0]: line[1:] for line in lines if line and line[0] and "---" not in line[0]}


def test_finished_draws_come_in_order_without_failures() -> None:
    assert [draw["base"]["accuracy"] for draw in draws()["cr"]] == [64, 60]


def test_tables_by_hand() -> None:
    """The standard deviation of 64 and 60 is √8; 20 and undefined, which counts as 0, √200."""
    six = cells(few_shots.table6(draws(), METRICS))
    assert six["row"] == ["cr, accuracy %", "amazon_counterfactual_en, mcc %", "mean"]
    assert six["base"] == six["ocd"] == ["62.0 ± 2.8", "10.0 ± 14.1", "36.0"]
    eight = cells(few_shots.table8(draws()))
    assert eight["base"] == ["0.6000 ± 0.1414", "0.3000 ± 0.1414"]
    assert eight["ocd"] == ["1.6000 ± 0.1414", "1.3000 ± 0.1414"]
    assert eight["ocd_mean_network"] == ["–", "–"]


def test_a_row_that_a_task_lacks_has_no_mean() -> None:
    found = draws()
    found["cr"][0] = {**found["cr"][0], "linear": {"accuracy": 70.0}}
    assert cells(few_shots.table6(found, METRICS))["linear"] == ["70.0", "–", "–"]


def test_the_metric_of_each_task() -> None:
    found = {task: few_shots.metric_names(task)[0] for task in few_shots.TASKS.split(",")}
    assert found.pop("amazon_counterfactual_en") == "mcc"
    assert set(found.values()) == {"accuracy"}
    with pytest.raises(UserError, match="mnist5k is not a task of the domain text"):
        few_shots.metric_names("mnist5k")


def test_what_is_queued(monkeypatch) -> None:
    ran: list[list[str]] = []
    monkeypatch.setattr(few_shots, "experiments", lambda: ENTRIES)
    monkeypatch.setattr(few_shots.subprocess, "run", lambda args, check: ran.append(args))
    few_shots.queue(draws=4, tasks="cr")
    failed, args = ran  # draws 0 and 1 have finished
    assert failed[5] == "few-shots--cr--2"
    assert args[:6] == ["dvc", "exp", "run", "--queue", "--name", "few-shots--cr--3"]
    assert args[-1] == "evaluate@cr-0-1"
    assert "params/cr.yaml:data.split_seed=3" in args


def test_no_table_before_a_draw_has_finished(monkeypatch) -> None:
    monkeypatch.setattr(few_shots, "experiments", lambda: ENTRIES)
    with pytest.raises(UserError, match="no draw of sst5 has finished"):
        few_shots.table(tasks="cr,sst5")
