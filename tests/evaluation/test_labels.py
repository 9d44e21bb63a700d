"""No label of the test split reaches a row, except the bounds.

All rows are fitted where there is neither a test split nor what was overfitted on it. With other labels in it (for
views: other photographs), only the bounds may answer differently.
"""

import shutil
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from ocd_core.artifacts import Artifacts
from ocd_core.evaluation import adjusting, evaluate
from ocd_core.evaluation.figures import Measuring
from ocd_core.evaluation.rows import ROWS, row_class
from ocd_core.samples import Batch, Split, Tensors
from ocd_core.tasks.base import Task
from ocd_core.tasks.regression import regression_metrics
from ocd_core.tasks.views.task import ViewSynthesis
from stages import evaluate as evaluate_stage
from stages import overfit
from tests.support.runs import GROUPS, run_of
from tests.support.toy import PlaneTask, ToyTask, plane_params, toy_params
from tests.support.views import views_run

Outputs = dict[str, Tensor]
BOUNDS = {name for name in ROWS.own() if row_class(name).sees_labels}


def all_rows(values: dict[str, Any]) -> dict[str, Any]:
    """The params with every row that comes with the package."""
    for name in ROWS.own():
        if row_class(name).Params is not None:
            values["controls"].setdefault(name, {**row_class(name).quick})
    values["controls"]["fit"] = [name for name in ROWS.own() if row_class(name).fitted]
    values["evaluate"]["rows"] = ROWS.own()
    return values


def other_classes(split: Split) -> Split:
    split.tensors["y"] = 1 - split.tensors["y"]
    return split


def other_numbers(split: Split) -> Split:
    split.tensors["y"] = 3 - split.tensors["y"].flip(0)
    return split


def other_photographs(split: Split) -> Split:
    return replace(split, views=replace(split.views, image_VHWC=1 - split.views.image_VHWC))


def outputs_of(task: str, domain: type[Task], change: Callable[[Split], Split]) -> Outputs:
    """Each row's outputs on a test split, which is overfitted and evaluated in the current folder."""
    found: dict[int, list[Tensor]] = {}
    names: list[str] = []
    opened, add, load = domain.open, Measuring.add, evaluate._Rows.__init__

    def open_changed(self: Task, prepared: Path, split: str) -> Split:
        plain = opened(self, prepared, split)
        return change(plain) if split == "test" else plain

    def add_and_keep(self: Measuring, output: Tensors, batch: Batch, draws: Tensors | None = None) -> None:
        found.setdefault(id(self), []).append(output)
        kept.append(self)
        add(self, output, batch, draws)

    def keep_names(self: Any, rows: Any, count: int) -> None:
        names.extend(row.name for row in rows)
        load(self, rows, count)

    kept: list[Measuring] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(domain, "open", open_changed)
        patch.setattr(Measuring, "add", add_and_keep)
        patch.setattr(evaluate._Rows, "__init__", keep_names)
        patch.setattr(adjusting, "choose_temperature", lambda *_args: 1.0)
        shutil.rmtree(Artifacts(task).overfit("test"), ignore_errors=True)
        overfit.main(task, split="test")
        evaluate_stage.main(task)
    order = list(dict.fromkeys(id(measuring) for measuring in kept))
    # each row's outputs are measured as they are and after its temperature, or with its noise, in turn
    plain = order[:: len(order) // len(names)]
    return {name: torch.cat(found[place]) for name, place in zip(names, plain, strict=True)}


def check(
    run: Callable[[str], Artifacts], domain: type[Task], change: Callable[[Split], Split], patch: pytest.MonkeyPatch
) -> set[str]:
    """Fit a run's rows and evaluate them twice; returns their names. run: makes it up to a stage."""
    opened = domain.open

    def without_test(self: Task, prepared: Path, split: str) -> Split:
        assert split != "test"
        return opened(self, prepared, split)

    made = run("overfit")
    shutil.rmtree(made.overfit("test"))
    patch.chdir(made.root)
    with pytest.MonkeyPatch.context() as training:
        training.setattr(domain, "open", without_test)
        for stage in ("train_diffusion", "train_scale", "tune_diffusion", "train_controls"):
            import_module(f"stages.{stage}").main(made.task)
    plain = outputs_of(made.task, domain, lambda split: split)
    changed = outputs_of(made.task, domain, change)
    assert plain.keys() == changed.keys()
    for name, output in plain.items():
        assert torch.equal(output, changed[name]) == (name not in BOUNDS), name
    return set(plain)


def test_classes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = all_rows(plane_params())
    rows = check(lambda upto: run_of(tmp_path, "plane", values, upto), PlaneTask, other_classes, monkeypatch)
    assert rows >= {"tent_1", "tent_1_online", "ocd_no_scale", "neighbour", *BOUNDS}


def test_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ToyTask, "metrics", regression_metrics())
    values = all_rows(toy_params(**GROUPS["head"]))
    rows = check(lambda upto: run_of(tmp_path, "toy", values, upto), ToyTask, other_numbers, monkeypatch)
    assert rows >= {
        "base_further",
        "hypernetwork",
        "ridge",
        "ocd_no_scale",
        "ocd_ensemble",
        "mean_variance",
        "deep_ensemble_2",
        *BOUNDS,
    }


def test_photographs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = check(lambda upto: views_run(tmp_path, upto, all_rows), ViewSynthesis, other_photographs, monkeypatch)
    assert rows >= {"base_further", "hypernetwork", "ridge", "ocd_mean_network", *BOUNDS}
