"""Laplace: exact on a linear-Gaussian model; the full matrix of classes with one feature; the runs without it."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ocd_core.artifacts import Artifacts
from ocd_core.errors import UserError
from ocd_core.evaluation.rows.laplace import Laplace, LaplaceParams, Posterior, last_layer
from ocd_core.samples import only
from ocd_core.tasks.classification import mixture
from ocd_core.tasks.regression import regression_metrics
from tests.support.arrays import ArraySplit, ArrayTask
from tests.support.runs import fit_row, val_pass

PRIOR, NOISE = 0.7, 0.3


class Numbers(ArrayTask):
    @property
    def metrics(self) -> Any:
        return regression_metrics()


class Classes(ArrayTask):
    def log_probabilities(self, output: Tensor) -> Tensor:
        return F.log_softmax(output, -1)

    def combine(self, outputs_KN: Any) -> Any:
        return mixture(outputs_KN)


def linear_split(count: int, seed: int) -> ArraySplit:
    """Two numbers that depend on three, with Gaussian noise."""
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(count, 3, generator=g)
    weight = torch.tensor([[1.0, -2.0, 0.5], [0.0, 1.0, 1.0]])
    return ArraySplit(x, x @ weight.T + 0.4 + NOISE * torch.randn(count, 2, generator=g))


def with_one(x: Tensor) -> Tensor:
    return F.pad(x.double(), (0, 1), value=1.0)


def context(task: ArrayTask, network: nn.Module, train: ArraySplit, val: ArraySplit, **params: Any) -> Any:
    own = LaplaceParams(**{"precisions": [PRIOR], "draws": 20_000, **params})
    return SimpleNamespace(
        split={"train": train, "val": val}.__getitem__,
        task=task,
        seed=0,
        has_classes=isinstance(task, Classes),
        device=torch.device("cpu"),
        predictor=SimpleNamespace(model=SimpleNamespace(network=network)),
        params=SimpleNamespace(controls=SimpleNamespace(of_row=lambda _name: own)),
    )


def shared_pass(network: nn.Module, x: Tensor) -> Any:
    return SimpleNamespace(
        base=SimpleNamespace(output=network(x).detach().double()),
        batch=SimpleNamespace(sample_id=torch.arange(len(x))),
        on_device=SimpleNamespace(inputs=(x,)),
        once=lambda _key, compute: compute(),
    )


def test_it_is_the_exact_posterior_of_a_linear_gaussian_model() -> None:
    """The base has the posterior's mean; its covariance is (XᵀX/σ² + λ)⁻¹ for each output."""
    train, val = linear_split(12, 0), linear_split(30, 1)
    network = nn.Linear(3, 2)
    x = with_one(train.x)

    def precision(variance: float) -> Tensor:
        return x.T @ x / variance + PRIOR * torch.eye(4, dtype=torch.float64)

    # σ² is measured on val with the base's errors, so find the weights for the σ² that they give
    variance = NOISE**2
    for _ in range(50):
        mean = torch.linalg.solve(precision(variance), x.T @ train.y.double() / variance)
        variance = float((with_one(val.x) @ mean - val.y).square().mean())
    network.load_state_dict({"weight": mean[:3].T, "bias": mean[3]})
    run = context(Numbers(), network, train, val)
    row = Laplace("laplace", run)
    assert row.left_out() is None
    fit = row.fit(run)
    assert fit.metrics["variance"] == pytest.approx(variance, rel=1e-4)
    assert fit.metrics["precision"] == PRIOR

    new = torch.randn(5, 3, generator=torch.Generator().manual_seed(2))
    h = with_one(new)
    of_each = torch.einsum("nf,fg,ng->n", h, torch.linalg.inv(precision(variance)), h)
    expected = of_each[:, None, None] * torch.eye(2, dtype=torch.float64)
    torch.testing.assert_close(row.posterior.covariance(h), expected, rtol=1e-4, atol=1e-9)
    on_val = with_one(val.x)
    spread = torch.einsum("nf,fg,ng->n", on_val, torch.linalg.inv(precision(variance)), on_val)
    normal = torch.distributions.Normal(on_val @ mean, (spread + variance).sqrt()[:, None])
    likelihood = normal.log_prob(val.y.double())  # type: ignore[no-untyped-call]
    assert fit.metrics["val_loss"] == pytest.approx(-float(likelihood.sum(1).mean()), rel=1e-4)

    shared = shared_pass(network, new)
    torch.testing.assert_close(row.outputs(shared), h @ mean, rtol=1e-5, atol=1e-5)
    one = shared_pass(network, new[:1].expand(300, -1))  # one input as 300 samples
    drawn = only(row.distribution(one)).reshape(-1, 2)
    torch.testing.assert_close(drawn.var(0), (of_each[0] + variance).expand(2), rtol=0.03, atol=0)


def test_the_covariance_of_outputs_is_that_of_the_inverse_of_the_kronecker_product() -> None:
    g = torch.Generator().manual_seed(0)
    x, half = torch.randn(9, 4, generator=g).double(), torch.randn(3, 3, generator=g).double()
    total, curvature = x.T @ x, half @ half.T
    inverse = torch.linalg.inv(torch.kron(curvature, total) + PRIOR * torch.eye(12, dtype=torch.float64))
    h = torch.randn(5, 4, generator=g).double()
    found = Posterior.of(total, curvature, PRIOR).covariance(h)
    for one, covariance in zip(h, found, strict=True):
        jacobian = torch.kron(torch.eye(3, dtype=torch.float64), one[None])  # of W h in W, row by row
        torch.testing.assert_close(covariance, jacobian @ inverse @ jacobian.T)


def test_classes_with_one_input_have_the_exact_curvature() -> None:
    """Equal inputs: A and G do not vary, so the factors give the Hessian of the summed cross entropy."""
    network = nn.Linear(2, 3, bias=False)
    x, y = torch.tensor([0.6, -1.1]).expand(8, 2), torch.arange(8) % 3
    run = context(Classes(), network, ArraySplit(x, y), ArraySplit(x, y))
    row = Laplace("laplace", run)
    assert row.left_out() is None
    row.fit(run)

    def loss(weight: Tensor) -> Tensor:
        return F.cross_entropy(x.double() @ weight.reshape(3, 2).T, y, reduction="sum")

    weight = network.weight.detach().double().flatten()
    hessian = torch.autograd.functional.hessian(loss, weight)  # type: ignore[no-untyped-call]
    inverse = torch.linalg.inv(hessian + PRIOR * torch.eye(6, dtype=torch.float64))
    jacobian = torch.kron(torch.eye(3, dtype=torch.float64), x[:1].double())
    covariance = row.posterior.covariance(x[:1].double())[0]
    torch.testing.assert_close(covariance, jacobian @ inverse @ jacobian.T, rtol=1e-5, atol=1e-8)
    # and the answer is the mean probability under this Gaussian
    logits = torch.distributions.MultivariateNormal(network(x[0]).detach().double(), covariance).sample((200_000,))
    found = row.outputs(shared_pass(network, x[:1]))
    assert isinstance(found, Tensor)
    torch.testing.assert_close(found.exp()[0], logits.softmax(-1).mean(0), atol=0.01, rtol=0)


@pytest.mark.usefixtures("plane_classes")
def test_it_chooses_the_precision_on_val_and_is_loaded(plane_run: Artifacts) -> None:
    tried = {prior: fit_row(plane_run, "laplace", precisions=[prior])[2] for prior in (1e-3, 1e3)}
    best = min(tried, key=lambda prior: tried[prior].metrics["val_loss"])
    row, fitting, fit = fit_row(plane_run, "laplace", precisions=[1e-3, 1e3])
    assert fit.metrics == tried[best].metrics
    shared = val_pass(fitting)
    found = row.outputs(shared)
    loss = float(fitting.task.loss(found, fitting.split("val").batch(shared.batch.sample_id).target).mean())
    assert loss == pytest.approx(fit.metrics["val_loss"], rel=1e-5)
    few = type(shared)(shared.predictor, shared.batch.select(slice(3, 5)), "val")
    torch.testing.assert_close(row.distribution(few), row.distribution(shared)[:, 3:5])


def test_runs_without_the_row() -> None:
    split = linear_split(6, 0)

    def why(task: ArrayTask, network: nn.Module, split: ArraySplit = split) -> str | None:
        return Laplace("laplace", context(task, network, split, split)).left_out()

    not_linear = "the outputs of the base network are not those of a linear layer"
    assert why(Numbers(), nn.ReLU()) == not_linear
    assert why(ArrayTask(), nn.Linear(3, 2)) == "no metric of the task measures a distribution of numbers"
    assert why(Classes(), nn.Linear(3, 2)) == "the target is not one class"
    one_number = nn.Sequential(nn.Linear(3, 1), nn.Flatten(0))
    assert why(Numbers(), one_number, ArraySplit(split.x, split.y[:, :1])) is None
    assert why(Numbers(), one_number) == "outputs and targets have different numbers of values"


def test_a_base_without_errors_is_refused() -> None:
    split = ArraySplit(torch.ones(4, 3), torch.zeros(4, 2))
    network = nn.Linear(3, 2)
    nn.init.zeros_(network.weight)
    nn.init.zeros_(network.bias)
    run = context(Numbers(), network, split, split)
    with pytest.raises(UserError, match="no errors on val"):
        Laplace("laplace", run).fit(run)


class Clamped(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.clamp(-50, 50)


@pytest.mark.parametrize("after", [nn.ReLU(), nn.ReLU(inplace=True), nn.Hardshrink(), nn.Softmax(-1), Clamped()])
@pytest.mark.parametrize("outputs", [1, 2])
@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_what_follows_the_last_layer_is_seen_where_it_leaves_the_first_sample_unchanged(
    after: nn.Module, outputs: int, sign: float
) -> None:
    layer = nn.Linear(3, outputs)
    nn.init.zeros_(layer.weight)
    nn.init.constant_(layer.bias, sign)
    assert last_layer(nn.Sequential(layer, after), (torch.zeros(1, 3),)) is None


class Gated(nn.Module):
    """A linear layer, and nothing where the first number is above a limit."""

    def __init__(self, limit: float) -> None:
        super().__init__()
        self.head, self.limit = nn.Linear(3, 2), limit

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x) * (x[:, :1] <= self.limit)


def test_what_follows_the_last_layer_in_few_samples_is_seen() -> None:
    split = linear_split(40, 0)
    first, largest = float(split.x[0, 0]), float(split.x[:, 0].max())
    assert first < largest
    not_linear = "the outputs of the base network are not those of a linear layer"
    for limit, reason in ((first, not_linear), (largest, None)):
        row = Laplace("laplace", context(Numbers(), Gated(limit), split, split))
        assert row.left_out() == reason
    split.x[7, 0] = largest + 1  # not among those that are tried
    run = context(Numbers(), Gated(largest), split, split)
    row = Laplace("laplace", run)
    assert row.left_out() is None
    with pytest.raises(UserError, match="are not those of its last linear layer for every sample"):
        row.fit(run)


class Twice(nn.Module):
    """One linear layer for each of two vectors of a sample, and once more for their sum."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(self.layer(x).sum(1))


class Table(nn.Module):
    """The layer's output says which row of a table is added."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.table = nn.Linear(3, 1), nn.Embedding(2, 1)
        nn.init.zeros_(self.layer.weight)
        nn.init.zeros_(self.layer.bias)
        nn.init.zeros_(self.table.weight)

    def forward(self, x: Tensor) -> Tensor:
        out = self.layer(x)
        return out + self.table(out[:, 0].round().long())


def test_networks_that_do_not_take_other_values_have_no_last_layer() -> None:
    assert last_layer(Twice(), (torch.zeros(4, 2, 3),)) is None
    assert last_layer(Table(), (torch.zeros(4, 3),)) is None


def test_the_last_layer_is_found_behind_a_reshape() -> None:
    network = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1), nn.Flatten(0))
    assert last_layer(network, (torch.zeros(2, 3),)) is network[2]
