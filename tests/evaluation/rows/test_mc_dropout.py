"""MC dropout: masks that stay on, differ between draws and do not depend on how the evaluation goes."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ocd_core.artifacts import Artifacts, read_json
from ocd_core.evaluation.context import Context, Fitting, Unlabelled
from ocd_core.evaluation.fitted import load_rows
from ocd_core.evaluation.rows.mc_dropout import McDropout, McDropoutParams
from ocd_core.evaluation.shared_pass import SharedPass
from ocd_core.predictor import Predictor
from ocd_core.samples import SPLITS, whole_split
from tests.support.arrays import Ragged
from tests.support.runs import GROUPS, params_of, run_of
from tests.support.toy import PointSet, toy_params

DRAWS = 3


class Dropped(PointSet):
    """With a dropout layer that does nothing."""

    def __init__(self, width: int = 6) -> None:
        super().__init__(width)
        self.dropout = nn.Dropout(0.0)

    def forward(self, points: Tensor) -> Tensor:
        return self.head(self.dropout(torch.relu(self.embed(points)).mean(1)))


@pytest.fixture(scope="module")
def dropped(tmp_path_factory: pytest.TempPathFactory) -> Artifacts:
    values = toy_params(**GROUPS["head"])
    values["base"]["model"] = {"name": f"{__name__}:Dropped", "args": {"width": 6}}
    values["controls"]["mc_dropout"] = {"p": 0.5, "epochs": 5}
    values["controls"]["fit"] = ["mc_dropout"]
    values["evaluate"]["rows"] = ["base", "mc_dropout"]
    root: Path = tmp_path_factory.mktemp("dropped")
    return run_of(root, "toy", values, "evaluate")


def loaded(run: Artifacts) -> tuple[Any, Context]:
    params = params_of(run)
    context = Context(run, params, Predictor.from_run(run, params), SPLITS)
    return load_rows(context, ["base", "mc_dropout"])[0][1], context


def test_draws_are_masks_of_one_network(dropped: Artifacts) -> None:
    row, context = loaded(dropped)
    split = context.split("test")
    shared = SharedPass(context.predictor, split.batch(whole_split(split)), "test")
    draws = row.distribution(shared)
    assert draws.shape == (DRAWS, len(split), 2)
    assert not torch.equal(draws[0], draws[1])
    torch.testing.assert_close(row.outputs(shared), draws.mean(0))
    # the outputs of a mask: half of the six units, each or not, doubled
    network = row.network
    with torch.no_grad():
        units = torch.relu(network.embed(shared.batch.inputs[0])).mean(1)
        masks = torch.tensor([[i >> bit & 1 for bit in range(6)] for i in range(64)]).float() * 2
        possible = (units[:, None] * masks) @ network.head.weight.T + network.head.bias
    for draw in draws:
        nearest = (possible - draw[:, None]).abs().amax(-1).amin(1)
        assert nearest.max() < 1e-5


def test_the_same_for_any_division(dropped: Artifacts) -> None:
    (row, context), (again, _) = loaded(dropped), loaded(dropped)
    split = context.split("test")
    whole = row.distribution(SharedPass(context.predictor, split.batch(whole_split(split)), "test"))
    for rows in whole_split(split).split(7):
        part = again.distribution(SharedPass(context.predictor, split.batch(rows), "test"))
        assert torch.equal(part, whole[:, rows])


def test_samples_that_differ_in_shape_are_answered_whole(dropped: Artifacts, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a network that gives its input back, so that answers differ in shape too."""
    row, context = loaded(dropped)
    split = Ragged(*(torch.rand(n, 4, generator=torch.Generator().manual_seed(n)) + 1 for n in (5, 3, 9)))
    monkeypatch.setattr(Context, "unlabelled", lambda _self, _name: Unlabelled(split))
    row.network = nn.Dropout(0.5)
    for n, sample in enumerate(split.samples):
        found = row.distribution(SharedPass(context.predictor, split.batch(torch.tensor([n])), "test"))
        assert found.shape == (DRAWS, 1, *sample.shape)
        assert bool(((found == 0) | (found == 2 * sample)).all())


def test_the_training_starts_with_the_dropout(dropped: Artifacts, monkeypatch: pytest.MonkeyPatch) -> None:
    params = params_of(dropped)
    fitting = Fitting(dropped, params, Predictor.from_run(dropped, params))
    monkeypatch.setitem(vars(fitting), "tuned_flops", {"total": 10_000})
    monkeypatch.setattr("ocd_core.evaluation.context.base_epoch_flops", lambda *_: 3_000)
    weights = {}
    for p in (0.5, 0.01):
        row = McDropout("mc_dropout", fitting)
        row.params = McDropoutParams(p=p, epochs=None)
        fit = row.fit(fitting)
        assert row.network.dropout.p == p
        assert fit.metrics["epochs"] == 4  # 12,000 are the first to reach 10,000
        weights[p] = row.network.head.weight.clone()
    assert not torch.allclose(weights[0.5], weights[0.01], atol=1e-3)


def test_its_training_is_reported(dropped: Artifacts) -> None:
    metrics = read_json(dropped.controls / "metrics.json")
    assert metrics["mc_dropout"]["epochs"] == 5
    assert metrics["mc_dropout"]["val_loss"] > 0
    assert metrics["cost_flops"]["mc_dropout"]["total"] == metrics["cost_flops"]["mc_dropout"]["allowed"]


def test_without_dropout_layers_it_is_left_out(run: Artifacts, dropped: Artifacts) -> None:
    params = params_of(run)
    context = Context(run, params, Predictor.from_run(run, params), SPLITS)
    row = McDropout("mc_dropout", context)
    assert row.left_out() == "the base network has no dropout layers"
    row = loaded(dropped)[0]
    row.params = McDropoutParams(p=0.0, epochs=1)
    assert row.left_out() == "controls.mc_dropout.p is 0"


def test_a_network_with_given_weights_is_left_out(dropped: Artifacts, monkeypatch: pytest.MonkeyPatch) -> None:
    row, context = loaded(dropped)
    assert row.left_out() is None
    monkeypatch.setattr(type(context.task), "trains_afresh", False)
    assert row.left_out() == "the task has its network with given weights, and cannot train another from fresh ones"


def test_a_frozen_network_is_left_out(dropped: Artifacts, monkeypatch: pytest.MonkeyPatch) -> None:
    row, context = loaded(dropped)
    monkeypatch.setattr(type(context.task), "build_model", lambda _self: Dropped().requires_grad_(False))
    row = McDropout("mc_dropout", Context(context.run, context.params, context.predictor, SPLITS))
    assert row.left_out() == "every parameter of the base network is frozen"


class Published(Dropped):
    """A network whose training starts from published weights."""

    def load_pretrained(self) -> list[str]:
        with torch.no_grad():
            self.head.bias.fill_(50.0)
        return []


def test_its_training_starts_from_published_weights_as_the_bases_does(dropped: Artifacts, monkeypatch) -> None:
    params = params_of(dropped)
    fitting = Fitting(dropped, params, Predictor.from_run(dropped, params))
    monkeypatch.setattr(type(fitting.task), "build_model", lambda _self: Published())
    row = McDropout("mc_dropout", fitting)
    row.params = McDropoutParams(p=0.5, epochs=1)
    row.fit(fitting)
    assert row.network.head.bias.detach().min().item() > 40
