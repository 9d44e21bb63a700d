"""Fitted rows: fitted one by one, in one file, loaded again."""

import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from ocd_core.artifacts import Artifacts
from ocd_core.config import Params
from ocd_core.errors import UserError
from ocd_core.evaluation.context import Fitting
from ocd_core.evaluation.fitted import FittedRows, fit_rows, load_rows
from ocd_core.evaluation.row import Fit, FittedRow, Saved
from ocd_core.evaluation.shared_pass import SharedPass
from ocd_core.predictor import Predictor
from ocd_core.samples import Tensors
from ocd_core.store import OverfitStore
from ocd_core.weights import BaseId
from tests.support.runs import context_of, params_of, reseal
from tests.support.toy import PointSet, ToyTask


def fitting_of(run: Artifacts, *names: str) -> Fitting:
    params = params_of(run)
    params = params.model_copy(update={"controls": params.controls.model_copy(update={"fit": list(names)})})
    return Fitting(run, params, Predictor.from_run(run, params))


def base_of(run: Artifacts) -> BaseId:
    return OverfitStore(run.overfit("train")).base


def test_the_stage_writes_one_network_for_all(run: Artifacts) -> None:
    assert {p.name for p in run.controls.iterdir()} == {
        "model.safetensors",
        "config.json",
        "params.json",
        "metrics.json",
        "curves.tsv",
        "manifest.json",
    }
    assert json.loads((run.controls / "params.json").read_text()) == params_of(run).effective("controls")
    names = {name.split(".")[0] for name in load_file(run.controls / "model.safetensors")}
    shared = {"space"} if params_of(run).layer.select == "embed" else set()  # `factored` has no tensors
    networks = {"regression", "hypernetwork", "hypernetwork_pretrained", "hypernetwork_stochastic"}
    assert names == {"mean_delta", "further", "ridge", *networks, *shared}
    metrics = json.loads((run.controls / "metrics.json").read_text())
    assert list(metrics) == [*params_of(run).controls.fit, "cost_flops"]
    cost = metrics["cost_flops"]
    assert {*cost} == {"ocd", "ocd_tuned", "base_further", *networks}
    assert cost["base_further"]["total"] * 3 == cost["base_further"]["allowed"] * metrics["base_further"]["epochs"]


class Counter(FittedRow):
    """Fits the number of training samples."""

    title = "a counter"
    count_1: Tensor

    def fit(self, fitting: Fitting) -> Fit:
        self.count_1 = torch.tensor([float(len(fitting.split("train")))])
        return Fit({"count": self.count_1.item()}, flops={"total": 7})

    def tensors(self) -> Mapping[str, Tensor]:
        return {"count": self.count_1, "": self.count_1 + 1}

    def config(self) -> dict[str, Any]:
        return {"word": self.name.upper()}

    def load(self, saved: Saved) -> None:
        assert set(saved.tensors) == {"count", ""}
        assert torch.equal(saved.tensors[""], saved.tensors["count"] + 1)
        self.count_1, self.word = saved.tensors["count"], saved.config["word"]

    def outputs(self, shared: SharedPass) -> Tensors:
        return shared.base.output * 0 + self.count_1


class CounterB(Counter):
    prefix = "counted"


class NotHere(Counter):
    def left_out(self) -> str | None:
        return "it is a test"


def test_rows_are_fitted_in_order_saved_and_loaded(run: Artifacts, tmp_path: Path) -> None:
    a, b, c = (f"{__name__}:{cls.__name__}" for cls in (Counter, CounterB, NotHere))
    started: list[str] = []
    fitted = fit_rows(fitting_of(run, b, c, a), started.append)
    assert started == [b, c, a]
    assert [row.name for row in fitted.rows] == [b, a]
    assert fitted.left_out == {c: "it is a test"}
    summary = fitted.summary()
    assert summary[a] == summary[b] == {"count": 48.0}
    assert summary["cost_flops"][a] == {"total": 7}
    assert summary["cost_flops"]["ocd"]["total"] > 0
    assert summary["left_out"] == fitted.left_out
    assert fitted.space is None
    assert fitted.curves == {}
    copy = Artifacts("toy", root=tmp_path)
    shutil.copytree(run.root, tmp_path, dirs_exist_ok=True)
    fitted.save(copy.controls, base_of(copy))
    assert set(load_file(copy.controls / "model.safetensors")) == {f"{a}.count", a, "counted.count", "counted"}
    (second, first), left_out = load_rows(context_of(copy), [a, c, b])
    assert left_out == {c: "it is a test"}
    assert (second.word, first.word) == (a.upper(), b.upper())
    assert second.count_1 == first.count_1 == 48


class Times(Counter):
    """Three variants, of which one may be left out."""

    @classmethod
    def variants(cls, params: Params) -> tuple[str, ...]:
        return ("1", "2", "3")

    def fit(self, fitting: Fitting) -> Fit:
        assert self.variant == ""
        return super().fit(fitting)

    def left_out(self) -> str | None:
        return "it is even" if self.variant == "2" else None


class NoTimes(Times):
    def left_out(self) -> str | None:
        return "it is a test" if self.variant else None


class Different(Times):
    def left_out(self) -> str | None:
        return f"it is {self.variant}" if self.variant else None


def test_variants_share_one_fit(run: Artifacts, tmp_path: Path) -> None:
    name, none, different = (f"{__name__}:{cls.__name__}" for cls in (Times, NoTimes, Different))
    fitted = fit_rows(fitting_of(run, name, none, different))
    assert [row.name for row in fitted.rows] == [name, none, different]
    copy = Artifacts("toy", root=tmp_path)
    shutil.copytree(run.root, tmp_path, dirs_exist_ok=True)
    fitted.save(copy.controls, base_of(copy))
    rows, left_out = load_rows(context_of(copy), ["base", name, none, different])
    assert [row.name for row in rows] == ["base", f"{name}_1", f"{name}_3"]
    assert [row.word for row in rows[1:]] == [name.upper()] * 2
    each = {f"{different}_{variant}": f"it is {variant}" for variant in "123"}
    assert left_out == {f"{name}_2": "it is even", none: "it is a test", **each}


def test_nothing_to_fit_is_fine(run: Artifacts, tmp_path: Path) -> None:
    fitted = fit_rows(fitting_of(run))
    assert (fitted.rows, fitted.metrics) == ([], {})
    fitted.save(tmp_path, base_of(run))
    assert load_file(tmp_path / "model.safetensors") == {}


def test_a_row_that_was_not_fitted_is_named(run: Artifacts, tmp_path: Path) -> None:
    copy = Artifacts("toy", root=tmp_path)
    shutil.copytree(run.root, tmp_path, dirs_exist_ok=True)
    FittedRows([], {}, {}, {}).save(copy.controls, base_of(copy))
    with pytest.raises(UserError, match=r"holds no 'ridge'; run the stage train_controls again"):
        load_rows(context_of(copy), ["base", "ridge"])
    rows, _ = load_rows(context_of(copy), ["base", "ocd"])
    assert len(rows) == 2


def test_regressions_share_one_space(run: Artifacts) -> None:
    fitting = fitting_of(run, "ridge", "hypernetwork")
    fitted = fit_rows(fitting)
    assert {id(row.space) for row in fitted.rows} == {id(fitting.space)} == {id(fitted.space)}
    loaded, _ = load_rows(context_of(run), ["hypernetwork", "ridge"])
    assert loaded[0].space is loaded[1].space


def test_a_damaged_or_foreign_folder_is_refused(run: Artifacts, tmp_path: Path, monkeypatch) -> None:
    copy = Artifacts("toy", root=tmp_path)
    shutil.copytree(run.root, tmp_path, dirs_exist_ok=True)
    weights = copy.controls / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    with pytest.raises(UserError, match="is not the file that"):
        load_rows(context_of(copy), ["mean_delta"])
    weights.unlink()
    with pytest.raises(UserError, match="holds no complete controls network"):
        load_rows(context_of(copy), ["mean_delta"])
    model = Predictor.from_run(run, params_of(run)).model
    monkeypatch.setattr(ToyTask, "build_model", lambda _self: PointSet(7))
    context = context_of(run, Predictor.__new__(Predictor))
    context.predictor.model = model
    context.predictor.task = params_of(run).build_task()
    monkeypatch.setattr(Predictor, "device", torch.device("cpu"))
    with pytest.raises(UserError, match=r"further\.embed\.weight"):
        load_rows(context, ["base_further"])


def test_rows_for_another_base_or_layer_are_refused(run: Artifacts, tmp_path: Path) -> None:
    copy = Artifacts("toy", root=tmp_path)
    shutil.copytree(run.root, tmp_path, dirs_exist_ok=True)
    context, path = context_of(copy), copy.controls / "config.json"
    config = json.loads(path.read_text())
    assert config["base_sha256"] == hashlib.sha256((run.base / "model.safetensors").read_bytes()).hexdigest()
    assert config["layer"] == params_of(run).layer.select
    for changed in ({"base_sha256": "0" * 64}, {"layer": "other"}, {"base_sha256": None}):
        path.write_text(json.dumps({**config, **changed}))
        reseal(copy.controls)
        with pytest.raises(UserError, match=r"controls was trained for another base network or layer .*dvc repro"):
            load_rows(context, ["ridge"])
    params = params_of(copy)
    gained = params.model_copy(update={"scale": params.scale.model_copy(update={"gain": "validated"})})
    with pytest.raises(UserError, match="controls was trained for another base network or layer"):
        Predictor.from_run(copy, gained)


def test_what_another_version_wrote_is_refused(run: Artifacts, tmp_path: Path) -> None:
    copy = Artifacts("toy", root=tmp_path)
    shutil.copytree(run.root, tmp_path, dirs_exist_ok=True)
    path = copy.controls / "config.json"
    config = json.loads(path.read_text())
    for changed in ({k: v for k, v in config.items() if k != "rows"}, {**config, "rows": {"ridge": {}}}):
        path.write_text(json.dumps(changed))
        with pytest.raises(UserError, match="was written by another version"):
            load_rows(context_of(copy), ["ridge"])
