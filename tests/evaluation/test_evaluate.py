"""The rows of the table against networks whose weights are set by hand, one test sample at a time."""

import dataclasses
import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from ocd_core.artifacts import Artifacts
from ocd_core.config import Params, load_params, parse_params
from ocd_core.errors import UserError
from ocd_core.evaluation.controls.controls import Controls
from ocd_core.evaluation.controls.neighbour import Neighbours
from ocd_core.evaluation.evaluate import Evaluation, evaluate
from ocd_core.network.loading import load_cut_model
from ocd_core.network.moves import base_pass, outputs_with_move
from ocd_core.predictor import Predictor
from ocd_core.store import OverfitStore
from ocd_core.tasks.base import Metric
from tests.evaluation.controls.runs import toy_run
from tests.toy import SIZES, toy_params


@pytest.fixture(scope="module", params=["head", "embed"])
def run(request, tmp_path_factory) -> Artifacts:
    return toy_run(tmp_path_factory.mktemp(request.param), request.param, "evaluate")


def params_of(run: Artifacts) -> Params:
    return load_params("toy", run.root)


def evaluated(run: Artifacts, predictor: Predictor | None = None, controls: Controls | None = None, **changes):
    params = params_of(run)
    predictor = predictor or Predictor.from_run(run, params)
    task = predictor.task
    controls = controls or Controls.load(run.controls, task.build_model())
    neighbours = Neighbours(task, task.open(run.prepared, "train"), OverfitStore(run.overfit("train")))
    return evaluate(
        predictor, task.open(run.prepared, "test"), OverfitStore(run.overfit("test")), controls, neighbours,
        params.evaluate.model_copy(update=changes),
    )  # fmt: skip


def test_every_row_equals_a_network_with_that_delta(run: Artifacts) -> None:
    predictor = Predictor.from_run(run, params_of(run))
    task, space = predictor.task, predictor.diffusion.representation
    controls = Controls.load(run.controls, task.build_model())
    train, test = (task.open(run.prepared, s) for s in ("train", "test"))
    stores = {s: OverfitStore(run.overfit(s)) for s in ("train", "test")}
    draws = params_of(run).evaluate.draws
    train_x = train.batch(torch.arange(len(train))).inputs[0].flatten(1).double()
    expected: dict[str, list[float]] = {}
    for i in range(len(test)):
        batch = test.batch(torch.tensor([i]))
        base = base_pass(task, predictor.model, batch)
        layer_input = base.cut.x_NPI.mean(1)
        rho = predictor.estimate_rho(base)
        codes = [predictor.code(base, batch.sample_id, k) for k in range(draws)]
        drawn = [space.decode(c, rho, layer_input)[0] for c in codes]
        nearest = int((train_x - batch.inputs[0].flatten(1).double()).square().sum(1).argmin())
        ones = torch.ones(1) if space.uses_scale else None
        regress = controls.space.representation
        deltas = {
            "base": torch.zeros_like(drawn[0]),
            "mean_delta": controls.mean_delta_OI,
            "neighbour": torch.from_numpy(stores["train"].deltas_of_samples(np.array([nearest]))[0]),
            "ridge": regress.decode(controls.ridge(base.condition), ones, layer_input)[0],
            "hypernetwork": regress.decode(controls.hypernetwork(base.condition), ones, layer_input)[0],
            "ocd": drawn[0],
            "ocd_gain": controls.gain * drawn[0],
            "ocd_mean_network": sum(drawn) / draws,
            "bound": torch.from_numpy(stores["test"].deltas_of_samples(np.array([i]))[0]),
        }
        if space.uses_scale:
            mean_rho = torch.tensor([stores["train"].read("rho").mean()])
            deltas["ocd_no_scale"] = space.decode(codes[0], mean_rho, layer_input)[0]

        def network(delta):
            net = task.build_model().double()
            net.load_state_dict(predictor.model.replay_network.state_dict())
            net.get_submodule(predictor.model.layer_name).weight.data += delta.double()
            return net

        x, y = batch.inputs[0].double(), batch.target.double()
        outputs = {row: network(delta)(x) for row, delta in deltas.items()}
        outputs["ocd_ensemble"] = sum(network(d)(x) for d in drawn) / draws
        outputs["base_further"] = controls.further.double()(x)
        for row, output in outputs.items():
            expected.setdefault(row, []).append(task.loss(output, y).item())
    result = evaluated(run)
    assert set(result.values) == set(expected)
    assert [r for r in params_of(run).evaluate.rows if r in expected] == list(result.values)
    for row, values in expected.items():
        np.testing.assert_allclose(result.values[row]["rmse"], values, rtol=2e-5, err_msg=row)
    different = {row: tuple(np.round(v, 9)) for row, v in expected.items() if row != "ocd_gain"}
    assert len(set(different.values())) == len(different)


def test_the_table_holds_intervals_gaps_costs_and_what_was_left_out(run: Artifacts) -> None:
    table = json.loads((run.evaluation / "table.json").read_text())
    rows = {row["row"]: row for row in table["rows"]}
    mean = {name: row["rmse"]["value"] ** 2 for name, row in rows.items()}
    for name, row in rows.items():
        assert row["n"] == SIZES["test"]
        assert row["rmse"]["low"] <= row["rmse"]["value"] <= row["rmse"]["high"]
        share = (mean["base"] - mean[name]) / (mean["base"] - mean["bound"])
        assert row["gap_closed"] == pytest.approx(share, rel=1e-6, abs=1e-9)
    assert rows["base"]["gap_closed"] == 0
    assert rows["bound"]["gap_closed"] == 1
    assert rows["bound"]["rmse"]["z_against_base"] < 0
    uses_scale = params_of(run).layer.select == "head"
    assert list(table["left_out"]) == ([] if uses_scale else ["ocd_no_scale"])
    assert table["cost_flops"]["ocd"]["total"] > 0
    assert table["cost_flops"]["base_further"]["total"] > 0
    gain = json.loads((run.controls / "config.json").read_text())["gain"]
    assert rows["ocd_gain"]["title"] == f"OCD (one draw) × {gain:g}"


def test_the_bound_apart_for_what_its_overfitting_saw(run: Artifacts, monkeypatch) -> None:
    """The first number of every even sample is taken as seen, both of every odd one."""
    predictor = Predictor.from_run(run, params_of(run))
    task, store = predictor.task, OverfitStore(run.overfit("test"))
    assert evaluated(run, predictor).bound_parts is None

    def seen(split, sample_id, steps, seed):
        assert (steps, seed) == (params_of(run).overfit.steps, run.seed)
        return torch.stack([torch.ones(len(sample_id), dtype=torch.bool), sample_id % 2 == 1], 1)

    monkeypatch.setattr(task, "seen_while_overfitting", seen)
    found = evaluated(run, predictor).bound_parts
    batch = task.open(run.prepared, "test").batch(torch.arange(SIZES["test"]))
    delta = torch.from_numpy(store.deltas_of_samples(batch.sample_id.numpy()))
    error = (outputs_with_move(predictor.model, predictor.model.prefix(batch.inputs), delta) - batch.target) ** 2
    odd = batch.sample_id % 2 == 1
    on_seen = torch.where(odd, error.mean(1), error[:, 0]).mean() ** 0.5
    assert found.metric == "rmse"
    assert found.share_seen == 0.75
    assert found.seen == pytest.approx(float(on_seen), rel=1e-5)
    assert found.unseen == pytest.approx(float(error[~odd, 1].mean() ** 0.5), rel=1e-5)
    monkeypatch.setattr(task, "seen_while_overfitting", lambda *_: torch.ones(1, 2, dtype=torch.bool))
    whole = evaluated(run, predictor)
    assert whole.bound_parts.unseen is None


def test_share_of_the_gap_by_hand() -> None:
    metric = Metric("loss", lambda o, t: o, higher_is_better=False, finish=lambda v: v**0.5)
    values = {row: {"loss": np.array(v)} for row, v in
              {"base": [4.0, 6.0], "ocd": [4.0, 4.0], "worse": [6.0, 6.0], "bound": [1.0, 1.0]}.items()}  # fmt: skip
    result = Evaluation(values, None, (metric,), {})
    assert [result.gap_closed(row) for row in values] == [0.0, 0.25, -0.25, 1.0]
    alone = Evaluation({"base": values["base"]}, None, (metric,), {})
    assert alone.gap_closed("base") is None
    flat = Evaluation({"base": values["base"], "bound": values["base"]}, None, (metric,), {})
    assert flat.gap_closed("bound") is None


def test_only_the_rows_that_are_named_in_that_order(run: Artifacts) -> None:
    whole = evaluated(run)
    some = evaluated(run, rows=["ocd", "base"])
    assert list(some.values) == ["ocd", "base"]
    for row in some.values:
        np.testing.assert_array_equal(some.values[row]["rmse"], whole.values[row]["rmse"])
    assert some.left_out == {}


def test_one_draw_is_the_first_of_the_ensemble(run: Artifacts) -> None:
    one = evaluated(run, draws=1, rows=["base", "ocd", "ocd_ensemble", "ocd_mean_network"]).values
    np.testing.assert_array_equal(one["ocd"]["rmse"], one["ocd_ensemble"]["rmse"])
    np.testing.assert_allclose(one["ocd"]["rmse"], one["ocd_mean_network"]["rmse"], rtol=1e-12)


def with_gain(run: Artifacts) -> Params:
    params = params_of(run)
    return params.model_copy(update={"scale": params.scale.model_copy(update={"gain": "validated"})})


def test_a_validated_gain_multiplies_every_drawn_delta(run: Artifacts) -> None:
    """Against networks whose weights are moved by c Δ by hand, c being the control's; other rows stay."""
    predictor = Predictor.from_run(run, with_gain(run))
    c = json.loads((run.controls / "config.json").read_text())["gain"]
    assert predictor.gain == c
    predictor.gain = c = 0.3  # the control may have chosen 1
    task, space, draws = predictor.task, predictor.diffusion.representation, params_of(run).evaluate.draws
    test = task.open(run.prepared, "test")
    batch = test.batch(torch.arange(len(test)))
    base = base_pass(task, predictor.model, batch)
    rho, layer_input = predictor.estimate_rho(base), base.cut.x_NPI.mean(1)
    drawn = [space.decode(predictor.code(base, batch.sample_id, k), rho, layer_input) for k in range(draws)]
    mean_rho = np.linalg.norm(OverfitStore(run.overfit("train")).deltas().reshape(-1, drawn[0][0].numel()), axis=1)
    deltas = {"ocd": drawn[0], "ocd_mean_network": sum(drawn) / draws}
    if space.uses_scale:
        ones = torch.full((len(test),), float(mean_rho.mean()))
        deltas["ocd_no_scale"] = space.decode(predictor.code(base, batch.sample_id, 0), ones, layer_input)

    def outputs(delta: torch.Tensor) -> torch.Tensor:
        found = []
        for i in range(len(test)):
            net = task.build_model().double()
            net.load_state_dict(predictor.model.replay_network.state_dict())
            net.get_submodule(predictor.model.layer_name).weight.data += c * delta[i].double()
            found.append(net(batch.inputs[0][i : i + 1].double()))
        return torch.cat(found).detach()

    expected = {row: outputs(delta) for row, delta in deltas.items()}
    expected["ocd_ensemble"] = sum(outputs(delta) for delta in drawn) / draws
    found, plain = evaluated(run, predictor), evaluated(run)
    for row, output in expected.items():
        np.testing.assert_allclose(found.values[row]["rmse"], task.loss(output, batch.target.double()), rtol=2e-5)
        assert found.titles[row] == f"{plain.titles[row]}, with gain"
    assert set(found.values) == set(plain.values) - {"ocd_gain"}
    assert "0.3 that validation chose" in found.left_out["ocd_gain"]
    for row in set(found.values) - set(expected):
        np.testing.assert_array_equal(found.values[row]["rmse"], plain.values[row]["rmse"])
        assert found.titles[row] == plain.titles[row]


def test_whoever_loads_the_run_gets_its_gain(run: Artifacts, tmp_path: Path) -> None:
    copy = Artifacts("toy", root=tmp_path)
    shutil.copytree(run.root, tmp_path, dirs_exist_ok=True)
    for path, change in ((copy.controls / "config.json", {"gain": 0.25}),
                         (copy.evaluation / "config.json", with_gain(run).effective("evaluation"))):  # fmt: skip
        path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    x = torch.randn(4, 3, 4, generator=torch.Generator().manual_seed(0))
    predictor, plain = (Predictor.from_artifacts(r.rank_dir) for r in (copy, run))
    assert (predictor.gain, plain.gain) == (0.25, None)
    plain.gain = 0.25
    torch.testing.assert_close(predictor.predict(x, 2).output, plain.predict(x, 2).output, rtol=0, atol=0)
    assert Predictor.from_run(copy, with_gain(run), with_gain=False).gain is None
    (copy.controls / "config.json").write_text(json.dumps({"gain": None}))
    with pytest.raises(UserError, match=r"holds no gain; run the stage train_controls"):
        Predictor.from_artifacts(copy.rank_dir)


def test_float32_is_near_float64(run: Artifacts) -> None:
    params = params_of(run)
    predictor = Predictor.from_run(run, params)
    single = Predictor(
        predictor.task, load_cut_model(run, predictor.task, precision="float32"), predictor.diffusion,
        predictor.scale, params.sampling, run.seed,
    )  # fmt: skip
    base = base_pass(single.task, single.model, single.task.open(run.prepared, "test").batch(torch.arange(3)))
    assert base.output.dtype == torch.float32
    double, found = evaluated(run), evaluated(run, single)
    for row in double.values:
        np.testing.assert_allclose(found.values[row]["rmse"], double.values[row]["rmse"], rtol=1e-4, atol=1e-6)
    assert not np.array_equal(found.values["base"]["rmse"], double.values["base"]["rmse"])


def test_a_row_that_was_not_fitted_is_named(run: Artifacts) -> None:
    controls = Controls.load(run.controls, params_of(run).build_task().build_model())
    with pytest.raises(UserError, match=r"no 'ridge'; run the stage train_controls"):
        evaluated(run, controls=dataclasses.replace(controls, ridge=None))
    assert evaluated(run, controls=dataclasses.replace(controls, ridge=None), rows=["base"]).samples == SIZES["test"]


def test_outputs_that_are_not_finite_name_the_row(run: Artifacts) -> None:
    controls = Controls.load(run.controls, params_of(run).build_task().build_model())
    broken = dataclasses.replace(controls, mean_delta_OI=controls.mean_delta_OI * torch.nan)
    with pytest.raises(UserError, match="mean Δ for all"):
        evaluated(run, controls=broken)


@pytest.mark.parametrize(
    ("group", "changes", "message"),
    [
        ("evaluate", {"rows": ["ocd"]}, r"rows must name 'base'"),
        ("evaluate", {"rows": ["base", "ocd", "ocd"]}, r"rows names 'ocd' twice"),
        ("evaluate", {"rows": ["base", "magic"]}, r"evaluate\.rows\.1: "),
        ("controls", {"fit": ["ridge", "ridge"]}, r"fit names 'ridge' twice"),
        ("controls", {"fit": []}, r"evaluate\.rows names 'base_further', which controls\.fit does not"),
        ("controls", {"gains": []}, r"controls\.gains: "),
        ("scale", {"gain": "validated"}, r"which the control ocd_gain does; add it to controls\.fit"),
    ],
)
def test_impossible_rows_are_refused(group: str, changes: dict, message: str) -> None:
    values = toy_params()
    values[group] = {**values[group], **changes}
    if group == "scale":
        values["controls"]["fit"] = [row for row in values["controls"]["fit"] if row != "ocd_gain"]
        values["evaluate"]["rows"] = [row for row in values["evaluate"]["rows"] if row != "ocd_gain"]
    with pytest.raises(UserError, match=message):
        parse_params(values, "x")


def test_a_metric_that_falls_with_its_mean_by_hand() -> None:
    """Errors of .1, .01 and .1 against .1, .1 and .001, as 10 log10(1 / x): 10, 20, 10 and 10, 10, 30."""
    error = Metric("error", lambda o, t: o, higher_is_better=False)
    level = Metric("level", lambda o, t: o, higher_is_better=True, finish=lambda v: -10 * math.log10(v))
    values = {row: {"error": np.array(v), "level": np.array(v)} for row, v in
              {"base": [0.1, 0.01, 0.1], "ocd": [0.1, 0.1, 0.001]}.items()}  # fmt: skip
    result = Evaluation(values, None, (error, level), {"base": "", "ocd": ""})
    found = [[row[f"{name}_level"] for row in result.per_sample()] for name in values]
    np.testing.assert_allclose(found, [[10, 20, 10], [10, 10, 30]])
    assert [row["ocd_error"] for row in result.per_sample()] == [0.1, 0.1, 0.001]
    base, ocd = result.table(parse_params(toy_params(), "toy").evaluate, 0)
    difference = np.array([0, 0.09, -0.099])
    z = difference.mean() / (difference.std(ddof=1) / 3**0.5)
    assert ocd["error"]["z_against_base"] == pytest.approx(z)
    assert ocd["error"]["z_against_base"] < 0 < ocd["level"]["z_against_base"] == pytest.approx(-z)
    assert base["level"]["z_against_base"] == 0
    assert ocd["level"]["value"] == pytest.approx(-10 * math.log10(0.201 / 3))
    assert ocd["level"]["low"] <= ocd["level"]["value"] <= ocd["level"]["high"]
