"""The factor of a drawn Δ, chosen on validation by networks that are set up by hand."""

import json
import math

import pytest
import torch
from scipy import stats

from ocd_core.artifacts import Artifacts
from ocd_core.errors import UserError
from ocd_core.evaluation.fitted import load_rows
from ocd_core.evaluation.rows.ocd_gain import OcdGain
from ocd_core.predictor import Predictor
from ocd_core.samples import whole_split
from tests.support.runs import (
    assert_same_outputs,
    context_of,
    count_answers,
    drawn_deltas,
    moved_by_hand,
    params_of,
    row_of,
)


def test_the_gain_is_the_best_of_the_grid_on_val(run: Artifacts) -> None:
    params = params_of(run)
    predictor = Predictor.from_run(run, params)
    task = predictor.task
    val = task.open(run.prepared, "val")
    batch = val.batch(whole_split(val))
    deltas = drawn_deltas(predictor, batch, 0)
    allowed = params.controls.of_row("ocd_gain").gains
    losses = {
        gain: float(task.loss(moved_by_hand(predictor, batch, gain * deltas), batch.target.double()).mean())
        for gain in {0.0, 1.0, *allowed}
    }
    metrics = json.loads((run.controls / "metrics.json").read_text())["ocd_gain"]
    best = min(allowed, key=losses.get)
    assert row_of(run, "ocd_gain")[0].gain == metrics["gain"] == best
    assert metrics["val_loss"] == pytest.approx(losses[best], rel=1e-5)
    assert metrics["val_loss_base"] == pytest.approx(losses[0.0], rel=1e-5)
    assert metrics["val_loss_one_draw"] == pytest.approx(losses[1.0], rel=1e-5)
    assert (metrics["val_z_one_draw"] < 0) == (losses[1.0] < losses[0.0])
    lines = [r.split("\t") for r in (run.controls / "curves.tsv").read_text().splitlines()]
    column = {name: i for i, name in enumerate(lines[0])}
    found = {float(r[column["gain"]]): float(r[column["val_loss"]]) for r in lines if r[0] == "ocd_gain"}
    assert found == pytest.approx(losses, rel=1e-5)


def test_the_row_is_the_first_draw_times_the_gain(run: Artifacts) -> None:
    row, shared = row_of(run, "ocd_gain")
    row.gain = 0.3  # the fit may have chosen 1
    deltas = 0.3 * drawn_deltas(shared.predictor, shared.batch, 0)
    assert_same_outputs(row.outputs(shared), moved_by_hand(shared.predictor, shared.batch, deltas))
    assert row.title == "OCD (one draw) × 0.3"


def test_it_is_left_out_where_every_draw_has_a_gain(run: Artifacts) -> None:
    predictor = Predictor.from_run(run, params_of(run))
    predictor.gain = 0.3
    rows, left_out = load_rows(context_of(run, predictor), ["ocd_gain", "ocd"])
    assert [row.name for row in rows] == ["ocd"]
    assert left_out == {"ocd_gain": "every OCD row has the gain of 0.3 that validation chose"}
    assert torch.isfinite(torch.tensor(row_of(run, "ocd_gain")[0].gain))


def test_with_a_factor_of_one_it_is_the_answer_of_the_first_draw(run: Artifacts, monkeypatch) -> None:
    row, shared = row_of(run, "ocd_gain")
    calls = count_answers(monkeypatch)
    first = shared.drawn().output(0)
    row.gain = 1.0
    assert row.outputs(shared) is first
    assert len(calls) == 1
    row.gain = 0.5
    assert not torch.equal(row.outputs(shared), first)
    assert len(calls) == 2


def test_z_of_one_draw_is_that_of_the_splits_groups(run: Artifacts, monkeypatch) -> None:
    context = context_of(run)
    val = context.split("val")
    losses_GN = torch.rand(4, len(val), generator=torch.Generator().manual_seed(0)).double()
    losses_GN[1:] += torch.arange(len(val)) % 4
    monkeypatch.setattr("ocd_core.evaluation.rows.ocd_gain.losses_by_gain", lambda *_args: losses_GN)
    row = OcdGain("ocd_gain", context)
    row.params = row.params.model_copy(update={"gains": [0.5, 2.0]})
    by_row = row.fit(context).metrics["val_z_one_draw"]
    val.groups = torch.arange(len(val)) % 4
    means = [[float(losses_GN[i, val.groups == g].mean()) for g in range(4)] for i in (2, 0)]
    assert len(val) % 4 == 0
    assert row.fit(context).metrics["val_z_one_draw"] == pytest.approx(stats.ttest_rel(*means).statistic)
    assert by_row == pytest.approx(stats.ttest_rel(losses_GN[2], losses_GN[0]).statistic)


def test_a_factor_whose_loss_is_no_number_is_not_chosen(run: Artifacts, monkeypatch) -> None:
    context = context_of(run)
    losses_GN = torch.tensor([[1.0], [math.nan], [0.5], [math.inf]]).double().expand(-1, 4)  # factors 0, 0.5, 1, 2
    monkeypatch.setattr("ocd_core.evaluation.rows.ocd_gain.losses_by_gain", lambda *_args: losses_GN)
    row = OcdGain("ocd_gain", context)
    row.params = row.params.model_copy(update={"gains": [0.5, 1.0, 2.0]})
    assert row.fit(context).metrics["gain"] == 1.0
    monkeypatch.setattr("ocd_core.evaluation.rows.ocd_gain.losses_by_gain", lambda *_args: losses_GN[[0, 1, 1, 3]])
    with pytest.raises(UserError, match=r"controls\.ocd_gain\.gains: no factor gives a finite loss"):
        row.fit(context)
