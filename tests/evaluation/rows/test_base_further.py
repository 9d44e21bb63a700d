"""The base trained further: from its own weights, all that it trains and nothing that is frozen."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from ocd_core.artifacts import Artifacts, read_json
from ocd_core.evaluation.context import Fitting
from ocd_core.evaluation.rows.base_further import BaseFurther
from ocd_core.network.measuring import evaluate_model
from ocd_core.network.training import fit_base
from ocd_core.predictor import Predictor
from tests.support.runs import params_of, row_of
from tests.support.toy import PointSet, ToyTask, run_stages, write_toy_params


def test_it_starts_from_the_base_and_is_no_worse_on_val(run: Artifacts) -> None:
    row, shared = row_of(run, "base_further")
    base, further = shared.predictor.model.network, row.network.float()
    val = shared.predictor.task.open(run.prepared, "val")
    metrics = json.loads((run.controls / "metrics.json").read_text())["base_further"]
    before, after = (evaluate_model(shared.predictor.task, net, val)["loss"] for net in (base, further))
    assert after == pytest.approx(metrics["val_loss"])
    assert after <= before
    moved = [float((a - b).abs().max()) for a, b in zip(base.parameters(), further.parameters(), strict=True)]
    if metrics["best_epoch"]:
        assert min(moved) > 0  # all layers
        assert max(moved) < 0.1  # three epochs of a small step: another start would be far away
    else:
        assert max(moved) == 0


def test_its_outputs_are_the_whole_networks_in_the_tails_precision(run: Artifacts) -> None:
    row, shared = row_of(run, "base_further")
    output = row.outputs(shared)
    assert output.dtype == torch.float64
    torch.testing.assert_close(output, row.network(shared.batch.inputs[0].double()), rtol=0, atol=0)


def test_where_further_training_only_hurts_the_base_is_kept(run: Artifacts) -> None:
    params = params_of(run)
    task, base = params.build_task(), Predictor.from_run(run, params).model.network
    train, val = (task.open(run.prepared, s) for s in ("train", "val"))
    wild = params.base.model_copy(update={"lr": 10.0, "epochs": 2, "patience": 2})
    result = fit_base(task, train, val, wild, 0, start=base)
    assert result.metrics["best_epoch"] == 0
    assert result.metrics["epochs"] == 2
    assert [row["epoch"] for row in result.curve] == [0, 1, 2]
    assert result.curve[0]["val_loss"] == pytest.approx(evaluate_model(task, base, val)["loss"])
    for name, value in base.state_dict().items():
        assert torch.equal(result.model.state_dict()[name], value)


@pytest.mark.parametrize("epochs", [None, 2])
def test_its_budget_is_what_ocd_costs_unless_the_params_say_otherwise(run: Artifacts, monkeypatch, epochs) -> None:
    fitting = Fitting(run, params_of(run), Predictor.from_run(run, params_of(run)))
    monkeypatch.setitem(vars(fitting), "tuned_flops", {"total": 10_000})
    monkeypatch.setattr("ocd_core.evaluation.context.base_epoch_flops", lambda *_: 3_000)
    row = BaseFurther("base_further", fitting)
    row.params = row.params.model_copy(update={"epochs": epochs, "patience": None})
    fit = row.fit(fitting)
    assert fit.metrics["epochs"] == (epochs or 4)  # 12,000 are the first to reach 10,000
    assert fit.flops == {"allowed": 3_000 * (epochs or 4), "total": 3_000 * (epochs or 4)}
    assert len(fit.curve) == 1 + fit.metrics["epochs"]


class HalfFrozen(PointSet):
    """Its first layer is a frozen encoder, and one parameter is used by nobody."""

    def __init__(self, width: int = 6) -> None:
        super().__init__(width)
        self.embed.requires_grad_(False)
        self.unused = torch.nn.Parameter(torch.ones(3))


def test_what_is_frozen_stays_so(run: Artifacts, monkeypatch) -> None:
    predictor = Predictor.from_run(run, params_of(run))
    base = HalfFrozen()
    base.load_state_dict({**predictor.model.network.state_dict(), "unused": torch.ones(3)})
    predictor.model.network = base.requires_grad_(False)  # as a cut network is
    monkeypatch.setattr(ToyTask, "build_model", lambda _self: HalfFrozen())
    fitting = Fitting(run, params_of(run), predictor)
    monkeypatch.setitem(vars(fitting), "tuned_flops", {"total": 1})
    row = BaseFurther("base_further", fitting)
    assert row.left_out() is None
    row.params = row.params.model_copy(update={"epochs": 1, "lrs": [1e-3]})
    row.fit(fitting)
    for name, value in row.network.state_dict().items():
        if not name.startswith("head"):
            assert torch.equal(value, base.state_dict()[name]), name
    monkeypatch.setattr(ToyTask, "build_model", lambda _self: HalfFrozen().requires_grad_(False))
    row = BaseFurther("base_further", Fitting(run, params_of(run), predictor))
    assert row.left_out() == "every parameter of the base network is frozen"


def test_a_frozen_encoder_passes_every_stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    name = f"{__name__}:{HalfFrozen.__name__}"
    write_toy_params(tmp_path, base={"model": {"name": name, "args": {"width": 6}}, "epochs": 2, "batch_size": 16})
    run_stages("evaluate")
    run = Artifacts("toy", root=tmp_path)
    base = load_file(run.base / "model.safetensors")
    further = load_file(run.controls / "model.safetensors")
    frozen = [key for key in base if not key.startswith("head")]
    assert len(frozen) == 3
    assert all(torch.equal(base[key], further[f"further.{key}"]) for key in frozen)
    assert "base_further" in read_json(run.evaluation / "metrics.json")
