"""Mean and variance: recovers a known normal distribution, and starts from the base."""

from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ocd_core.evaluation.context import Context, Fitting
from ocd_core.evaluation.fitted import load_rows
from ocd_core.evaluation.noise import POINTS
from ocd_core.evaluation.rows.mean_variance import MeanVariance, MeanVarianceNetwork, MeanVarianceParams, _Likelihood
from ocd_core.evaluation.shared_pass import SharedPass
from ocd_core.network.training import fit_base
from ocd_core.predictor import Predictor
from ocd_core.samples import SPLITS, whole_split
from ocd_core.tasks.regression import regression_metrics
from tests.support.arrays import ArraySplit, ArrayTask
from tests.support.params import base_params
from tests.support.runs import GROUPS, params_of, run_of
from tests.support.toy import ToyTask, toy_params


class Lines(ArrayTask):
    def build_model(self) -> nn.Module:
        return nn.Linear(2, 1)


def known(count: int, seed: int) -> ArraySplit:
    """y = 2 x₀ + noise of deviation exp(x₁ / 2)."""
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(count, 2, generator=g)
    return ArraySplit(x, 2 * x[:, :1] + (x[:, 1:] / 2).exp() * torch.randn(count, 1, generator=g))


def test_it_recovers_a_known_distribution() -> None:
    params = base_params("x", {}, epochs=60, patience=60, batch_size=50, lr=0.01)
    found = fit_base(_Likelihood(Lines()), known(3000, 0), known(1000, 1), params, 0).model
    assert isinstance(found, MeanVarianceNetwork)
    mean, log_variance = (list(part.parameters()) for part in (found.mean, found.log_variance))
    torch.testing.assert_close(mean[0], torch.tensor([[2.0, 0.0]]), atol=0.1, rtol=0)
    torch.testing.assert_close(log_variance[0], torch.tensor([[0.0, 1.0]]), atol=0.12, rtol=0)
    torch.testing.assert_close(log_variance[1], torch.zeros(1), atol=0.12, rtol=0)


def test_the_loss_is_the_normal_densitys() -> None:
    g = torch.Generator().manual_seed(0)
    mean, log_variance, target = (torch.randn(6, 3, generator=g, dtype=torch.float64) for _ in range(3))
    found = _Likelihood(Lines()).loss((mean, log_variance), target)
    density = torch.distributions.Normal(mean, (log_variance / 2).exp()).log_prob(target)
    constant = 0.5 * torch.tensor(2 * torch.pi, dtype=torch.float64).log()
    torch.testing.assert_close(found, -(density + constant).mean(1))


@dataclass
class Found:
    row: Any
    shared: SharedPass


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> Any:
    values = toy_params(**GROUPS["head"])
    values["controls"]["mean_variance"] = {"epochs": 3, "patience": 3, "lr": 1e-3}
    values["controls"]["fit"] = ["mean_variance"]
    values["evaluate"]["rows"] = ["base", "mean_variance"]
    root: Path = tmp_path_factory.mktemp("mv")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ToyTask, "metrics", regression_metrics())
        run = run_of(root, "toy", values, "evaluate")
        params = params_of(run)
        context = Context(run, params, Predictor.from_run(run, params), SPLITS)
        row = load_rows(context, ["base", "mean_variance"])[0][1]
    split = context.split("test")
    return Found(row, SharedPass(context.predictor, split.batch(whole_split(split)), "test"))


def test_draws_are_from_the_normal_distribution(evaluated: Found) -> None:
    row, shared = evaluated.row, evaluated.shared
    assert isinstance(row, MeanVariance)
    mean, log_variance = row.network(shared.batch.inputs[0].double())
    output, draws = row.outputs(shared), row.distribution(shared)
    assert isinstance(output, Tensor)
    assert isinstance(draws, Tensor)
    torch.testing.assert_close(output, mean)
    assert draws.shape == (POINTS, *mean.shape)
    z = (draws - mean) / (log_variance / 2).exp()
    assert z.mean().abs() < 0.05
    assert z.std() == pytest.approx(1, abs=0.03)
    few = SharedPass(shared.predictor, shared.batch.select(slice(3, 5)), "test")
    torch.testing.assert_close(row.distribution(few), draws[:, 3:5])


def test_it_starts_from_the_base_within_the_budget(evaluated: Found, monkeypatch: pytest.MonkeyPatch) -> None:
    context = evaluated.row.context
    fitting = Fitting(context.run, context.params, context.predictor)
    monkeypatch.setattr(ToyTask, "metrics", regression_metrics())
    monkeypatch.setitem(vars(fitting), "tuned_flops", {"total": 10_000})
    monkeypatch.setattr("ocd_core.evaluation.context.base_epoch_flops", lambda *_: 6_000)
    row = MeanVariance("mean_variance", fitting)
    row.params = MeanVarianceParams(epochs=None, patience=5, lr=1e-9)
    fit = row.fit(fitting)
    assert fit.metrics["epochs"] == 2
    base = context.predictor.model.network.state_dict()
    for name, value in row.network.mean.state_dict().items():
        torch.testing.assert_close(value, base[name].float(), atol=1e-6, rtol=0)


def test_without_a_metric_of_distributions_it_is_left_out(evaluated: Found) -> None:
    row = MeanVariance("mean_variance", evaluated.row.context)
    assert row.left_out() == "no metric of the task measures a distribution of numbers"


def test_a_network_with_given_weights_has_no_fresh_one_for_the_variance(evaluated: Found, monkeypatch) -> None:
    monkeypatch.setattr(ToyTask, "metrics", regression_metrics())
    row = MeanVariance("mean_variance", evaluated.row.context)
    assert row.left_out() is None
    monkeypatch.setattr(ToyTask, "trains_afresh", False)
    assert row.left_out() == "the task has its network with given weights, and cannot train another from fresh ones"


def test_where_outputs_have_other_numbers_of_values_than_targets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Lines, "metrics", regression_metrics())
    context: Any = SimpleNamespace(
        task=Lines(),
        split={"train": known(3, 0)}.get,
        not_afresh=None,
        all_frozen=None,
        example_output=torch.ones(1, 2),
    )
    context.params = SimpleNamespace(controls=SimpleNamespace(of_row=lambda _name: None))
    assert MeanVariance("mean_variance", context).left_out() == "outputs and targets have different numbers of values"
    context.example_output = torch.ones(1)
    assert MeanVariance("mean_variance", context).left_out() is None
