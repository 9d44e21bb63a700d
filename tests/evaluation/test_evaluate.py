"""The table: its rows, figures, titles and what is left out."""

import hashlib
import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from ocd_core.artifacts import Artifacts
from ocd_core.config import Params, parse_params
from ocd_core.errors import UserError
from ocd_core.evaluation.evaluate import Evaluation, evaluate
from ocd_core.evaluation.figures import MeanFigure
from ocd_core.evaluation.fitted import load_rows
from ocd_core.evaluation.result import Result
from ocd_core.network.loading import load_cut_model
from ocd_core.network.moves import base_pass
from ocd_core.predictor import Predictor
from ocd_core.samples import Batch
from ocd_core.sealed import SEAL
from ocd_core.tasks.base import Metric
from tests.support.runs import context_of, evaluated, params_of, row_of
from tests.support.toy import SIZES, ToySplit, ToyTask, toy_params


def reasons(result: Evaluation) -> dict[str, str]:
    """Why rows are absent."""
    return {absent.row: absent.why for absent in result.absent}


def values_of(result: Evaluation) -> dict[str, np.ndarray]:
    """Each row's squared errors."""
    return {row: figures["rmse"].values for row, figures in result.figures.items()}


def test_every_row_is_measured_on_its_own_outputs(run: Artifacts) -> None:
    result = evaluated(run)
    params = params_of(run)
    assert [r for r in params.evaluate.rows if r not in reasons(result)] == list(result.figures)
    task = params.build_task()
    test = task.open(run.prepared, "test")
    target = test.batch(torch.arange(len(test))).target
    for name, values in values_of(result).items():
        row, shared = row_of(run, name)
        np.testing.assert_allclose(values, task.loss(row.outputs(shared), target), rtol=1e-9, err_msg=name)
    same = {"ocd_gain", "regression", "hypernetwork_pretrained"}  # as one draw; as they start, after so few updates
    different = {row: tuple(np.round(v, 9)) for row, v in values_of(result).items() if row not in same}
    assert len(set(different.values())) == len(different)


def test_the_table_holds_intervals_gaps_costs_and_what_was_left_out(run: Artifacts) -> None:
    table = json.loads((run.evaluation / "table.json").read_text())
    rows = {r["row"]: Result(**r) for r in table["results"]}
    assert len(rows) == len(table["results"])  # one metric, no temperature
    mean = {name: r.mean**2 for name, r in rows.items()}
    for name, r in rows.items():
        assert (r.n, r.seeds, r.sd_over_seeds, r.preset) == (SIZES["test"], 1, None, "default")
        assert r.low <= r.mean <= r.high
        share = (mean["base"] - mean[name]) / (mean["base"] - mean["bound"])
        assert r.gap_closed == pytest.approx(share, rel=1e-6, abs=1e-9)
        assert r.flops > 0
        if name != "base":
            assert r.difference == pytest.approx(r.mean - rows["base"].mean)
            assert r.difference_low <= r.difference <= r.difference_high
            assert r.p <= r.p_holm <= 1
    assert (rows["base"].gap_closed, rows["base"].p, rows["base"].difference) == (0, None, None)
    assert rows["bound"].gap_closed == 1
    assert rows["bound"].z < 0
    assert rows["bound"].chosen_on == "the labels of test"
    uses_scale = params_of(run).layer.select == "head"
    assert [(a["row"], a["status"]) for a in table["absent"]] == ([] if uses_scale else [("ocd_no_scale", "left out")])
    assert table["cost_flops"]["ocd"]["total"] == rows["ocd"].fit_flops == rows["ocd_ensemble"].fit_flops > 0
    assert table["cost_flops"]["base_further"]["total"] == rows["base_further"].fit_flops > 0
    assert rows["ocd_ensemble"].flops > rows["ocd"].flops > rows["base"].flops
    gain = json.loads((run.controls / "config.json").read_text())["rows"]["ocd_gain"]["gain"]
    assert rows["ocd_gain"].title == f"OCD (one draw) × {gain:g}"


def test_share_of_the_gap_by_hand() -> None:
    metric = Metric("loss", lambda o, t: o, higher_is_better=False, finish=lambda v: v**0.5)
    values = {"base": [4.0, 6.0], "ocd": [4.0, 4.0], "worse": [6.0, 6.0], "bound": [1.0, 1.0]}
    figures = {row: {"loss": MeanFigure(metric, np.array(v))} for row, v in values.items()}
    result = Evaluation(figures, (metric,), 2, {})
    assert [result.gap_closed(row) for row in values] == [0.0, 0.25, -0.25, 1.0]
    alone = Evaluation({"base": figures["base"]}, (metric,), 2, {})
    assert alone.gap_closed("base") is None
    flat = Evaluation({"base": figures["base"], "bound": figures["base"]}, (metric,), 2, {})
    assert flat.gap_closed("bound") is None


def test_only_the_rows_that_are_named_in_that_order(run: Artifacts) -> None:
    whole = values_of(evaluated(run))
    some = evaluated(run, rows=["ocd", "base"])
    assert list(some.figures) == ["ocd", "base"]
    for row, values in values_of(some).items():
        np.testing.assert_array_equal(values, whole[row])
    assert some.absent == ()


def test_one_draw_is_the_first_of_the_ensemble(run: Artifacts) -> None:
    one = values_of(evaluated(run, draws=[1], rows=["base", "ocd", "ocd_ensemble", "ocd_mean_network"]))
    np.testing.assert_array_equal(one["ocd"], one["ocd_ensemble"])
    np.testing.assert_allclose(one["ocd"], one["ocd_mean_network"], rtol=1e-12)


def test_each_number_of_draws_is_a_row(run: Artifacts) -> None:
    rows = ["base", "ocd", "ocd_ensemble", "ocd_mean_network"]
    both, three = evaluated(run, draws=[3, 1], rows=rows), values_of(evaluated(run, rows=rows))
    names = ["ocd_ensemble_3", "ocd_ensemble_1", "ocd_mean_network_3", "ocd_mean_network_1"]
    assert list(both.figures) == ["base", "ocd", *names]
    assert both.titles["ocd_ensemble_3"] == "OCD, ensemble of 3"
    assert both.titles["ocd_mean_network_1"] == "OCD, mean network of 1"
    values = values_of(both)
    np.testing.assert_array_equal(values["ocd_ensemble_3"], three["ocd_ensemble"])
    np.testing.assert_array_equal(values["ocd_mean_network_3"], three["ocd_mean_network"])
    np.testing.assert_array_equal(values["ocd_ensemble_1"], values["ocd"])


def with_gain(run: Artifacts) -> Params:
    params = params_of(run)
    return params.model_copy(update={"scale": params.scale.model_copy(update={"gain": "validated"})})


def test_a_validated_gain_is_in_every_drawn_row_and_in_no_other(run: Artifacts) -> None:
    predictor = Predictor.from_run(run, with_gain(run))
    assert predictor.gain == json.loads((run.controls / "config.json").read_text())["rows"]["ocd_gain"]["gain"]
    predictor.gain = 0.3  # the fit may have chosen 1
    found, plain = evaluated(run, predictor), evaluated(run)
    assert set(found.figures) == set(plain.figures) - {"ocd_gain"}
    assert "0.3 that validation chose" in reasons(found)["ocd_gain"]
    for row, values in values_of(found).items():
        drawn = row in {"ocd", "ocd_ensemble", "ocd_mean_network", "ocd_no_scale"}
        assert np.array_equal(values, values_of(plain)[row]) == (not drawn)
        assert found.titles[row] == plain.titles[row] + (", with gain" if drawn else "")


def test_whoever_loads_the_run_gets_its_gain(run: Artifacts, tmp_path: Path) -> None:
    copy = Artifacts("toy", root=tmp_path)
    shutil.copytree(run.root, tmp_path, dirs_exist_ok=True)
    chosen = {"rows": {"ocd_gain": {"gain": 0.25}}}
    for path, change in (
        (copy.controls / "config.json", chosen),
        (copy.evaluation / "config.json", with_gain(run).effective("evaluation")),
    ):
        path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
        manifest = path.parent / "manifest.json"
        made = {key: value for key, value in json.loads(manifest.read_text()).items() if key != SEAL}
        made["files"][path.name] = hashlib.sha256(path.read_bytes()).hexdigest()
        manifest.write_text(json.dumps(made))
    x = torch.randn(4, 3, 4, generator=torch.Generator().manual_seed(0))
    predictor, plain = (Predictor.from_artifacts(r.rank_dir) for r in (copy, run))
    assert (predictor.gain, plain.gain) == (0.25, None)
    plain.gain = 0.25
    torch.testing.assert_close(predictor.predict(x, 2).output, plain.predict(x, 2).output, rtol=0, atol=0)
    assert Predictor.from_run(copy, with_gain(run), with_gain=False).gain is None
    (copy.controls / "config.json").write_text(json.dumps({"rows": {"ocd_gain": {"gain": None}}}))
    with pytest.raises(UserError, match=r"controls/config\.json is damaged"):
        Predictor.from_run(copy, with_gain(run))


def test_float32_is_near_float64(run: Artifacts) -> None:
    params = params_of(run)
    predictor = Predictor.from_run(run, params)
    single = Predictor(
        predictor.task,
        load_cut_model(run, predictor.task, precision="float32"),
        predictor.diffusion,
        predictor.scale,
        params.sampling,
        run.seed,
    )
    base = base_pass(single.task, single.model, single.task.open(run.prepared, "test").batch(torch.arange(3)))
    assert base.output.dtype == torch.float32
    double, found = values_of(evaluated(run)), values_of(evaluated(run, single))
    for row, values in double.items():
        np.testing.assert_allclose(found[row], values, rtol=1e-4, atol=1e-6)
    assert not np.array_equal(found["base"], double["base"])


def test_a_row_that_fails_says_why_and_the_others_are_measured(run: Artifacts) -> None:
    context = context_of(run)
    rows, _ = load_rows(context, ["base", "mean_delta", "ocd"])
    whole = values_of(evaluate(context, rows))
    rows[1].delta_OI = rows[1].delta_OI * torch.nan
    result = evaluate(context, rows)
    (absent,) = result.absent
    assert (absent.row, absent.status) == ("mean_delta", "failed")
    assert "'mean Δ for all' gives outputs that are not finite" in absent.why
    found = values_of(result)
    assert list(found) == ["base", "ocd"]
    for name, values in found.items():
        np.testing.assert_array_equal(values, whole[name])


def test_a_base_that_fails_ends_the_evaluation(run: Artifacts, monkeypatch: pytest.MonkeyPatch) -> None:
    context = context_of(run)
    rows, _ = load_rows(context, ["base", "ocd"])
    monkeypatch.setattr(rows[0], "outputs", lambda shared: shared.base.output * torch.nan)
    with pytest.raises(UserError, match="'base network' gives outputs that are not finite"):
        evaluate(context, rows)


def test_a_metric_that_falls_with_its_mean_by_hand() -> None:
    """Errors of .1, .01 and .1 against .1, .1 and .001, as 10 log10(1 / x): 10, 20, 10 and 10, 10, 30."""
    error = Metric("error", lambda o, t: o, higher_is_better=False)
    level = Metric("level", lambda o, t: o, higher_is_better=True, finish=lambda v: -10 * math.log10(v))
    values = {"base": [0.1, 0.01, 0.1], "ocd": [0.1, 0.1, 0.001]}
    figures = {row: {m.name: MeanFigure(m, np.array(v)) for m in (error, level)} for row, v in values.items()}
    result = Evaluation(figures, (error, level), 3, {"base": "", "ocd": ""})
    found = [[row[f"{name}_level"] for row in result.per_sample()] for name in values]
    np.testing.assert_allclose(found, [[10, 20, 10], [10, 10, 30]])
    assert [row["ocd_error"] for row in result.per_sample()] == [0.1, 0.1, 0.001]
    params = parse_params(toy_params(), "toy").evaluate
    found = {(r.row, r.metric): r for r in result.results(params, 0)}
    difference = np.array([0, 0.09, -0.099])
    z = difference.mean() / (difference.std(ddof=1) / 3**0.5)
    assert found["ocd", "error"].z == pytest.approx(z)
    assert found["ocd", "error"].z < 0 < found["ocd", "level"].z == pytest.approx(-z)
    level = found["ocd", "level"]
    assert level.mean == pytest.approx(-10 * math.log10(0.201 / 3))
    assert level.low <= level.mean <= level.high
    assert level.spread_over_samples == pytest.approx(np.std([10, 10, 30], ddof=1))
    assert level.difference == pytest.approx(level.mean - found["base", "level"].mean)
    assert found["ocd", "error"].p == pytest.approx(2 * stats.t.sf(abs(z), 2))


def positive(output: Tensor, target: Tensor) -> Tensor:
    return (output[:, 0] > target[:, 0]).double()


def against_inputs(output: Tensor, batch: Batch) -> Tensor:
    return (output - batch.inputs[0][:, 0, :2]).square().mean(1)


METRICS = [
    Metric("rmse", lambda o, t: (o - t).square().mean(1), higher_is_better=False, finish=lambda v: v**0.5),
    Metric("worst", per_group=lambda o, t: float((o - t).abs().max()), higher_is_better=False),
    Metric("share", over_split=lambda o, t: float(positive(o, t).mean()), higher_is_better=True),
    Metric("seen", against_inputs, higher_is_better=False, sees="batch"),
]


def test_all_kinds_of_metrics_and_groups_in_one_table(run: Artifacts, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four groups of five: figures from plain loops over the outputs, and less certain than by row."""
    monkeypatch.setattr(ToyTask, "metrics", METRICS)
    monkeypatch.setattr(ToySplit, "groups", property(lambda self: torch.arange(len(self)) % 4), raising=False)
    result = evaluated(run, rows=["base", "ocd", "bound"])
    assert (result.samples, result.groups) == (20, 4)
    task = params_of(run).build_task()
    split = task.open(run.prepared, "test")
    batch = split.batch(torch.arange(20))
    table = {(r.row, r.metric): r for r in result.results(params_of(run).evaluate, 0)}
    for name in ("base", "ocd", "bound"):
        row, shared = row_of(run, name)
        output = row.outputs(shared)
        error = (output - batch.target).abs()
        worst = np.mean([float(error[g::4].max()) for g in range(4)])
        assert table[name, "worst"].mean == pytest.approx(worst)
        assert table[name, "share"].mean == pytest.approx(float(positive(output, batch.target).mean()))
        seen = against_inputs(output, batch).mean()
        assert table[name, "seen"].mean == pytest.approx(float(seen))
        assert table[name, "share"].spread_over_samples is None
        for metric in METRICS:
            entry = table[name, metric.name]
            assert entry.low <= entry.mean <= entry.high
            if name != "base":
                assert math.isfinite(entry.z)
                assert entry.difference_low <= entry.difference <= entry.difference_high
    assert table["bound", "worst"].z < 0
    assert set(result.per_sample()[0]) - {"sample_id", "rho"} == {
        f"{row}_{metric}" for row in ("base", "ocd", "bound") for metric in ("rmse", "seen")
    }
    monkeypatch.undo()
    alone = evaluated(run, rows=["base", "ocd"])
    assert alone.groups is None
    by_row = {r.row: r for r in alone.results(params_of(run).evaluate, 0)}
    assert table["ocd", "rmse"].mean == by_row["ocd"].mean
    assert table["ocd", "rmse"].z != by_row["ocd"].z


def test_a_metric_of_groups_needs_groups(run: Artifacts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ToyTask, "metrics", METRICS)
    with pytest.raises(UserError, match="metric 'worst' needs groups of samples"):
        evaluated(run, rows=["base"])


def test_what_is_not_defined_for_a_row_is_left_out_of_its_numbers() -> None:
    """As the area under the curve of answers of one class alone."""
    metric = Metric("auc", lambda o, t: o, higher_is_better=True)
    values = {"base": [0.5, 0.7], "ocd": [math.nan, 0.5], "bound": [1.0, 1.0]}
    figures = {row: {"auc": MeanFigure(metric, np.array(v))} for row, v in values.items()}
    result = Evaluation(figures, (metric,), 2, dict.fromkeys(values, ""), temperatures={"ocd": 2.0}, tempered=figures)
    assert [result.gap_closed(row) for row in values] == [0.0, None, 1.0]
    found = {r.row: r for r in result.results(parse_params(toy_params(), "toy").evaluate, 0) if r.temperature is None}
    assert (found["ocd"].mean, found["ocd"].gap_closed) == (None, None)
    summary = result.summary()
    assert summary["ocd"] == {"temperature": 2.0}
    json.dumps(summary, allow_nan=False)
