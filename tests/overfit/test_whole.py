"""Overfitting in all layers against the plain procedure: a copy of the network per sample, torch.optim, float64."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ocd_core.errors import UserError
from ocd_core.models.lenet5 import LeNet5
from ocd_core.models.mlp import MLP
from ocd_core.network.cut import CutModel
from ocd_core.network.per_sample import PerSampleNetwork
from ocd_core.overfit.params import OverfitParams
from ocd_core.overfit.steps import StepPart, overfit
from ocd_core.overfit.whole import WholeInputs, overfit_all_layers, samples_within
from ocd_core.samples import Batch, Tensors, as_tuple, map_tensors
from tests.support.params import overfit_params

OPTIMIZERS = [("sgd", 0.05), ("adam", 0.01)]


def cross_entropy(output: Tensor, target: Tensor) -> Tensor:
    return F.cross_entropy(output, target, reduction="none")


def squared_error(output: Any, target: Any) -> Tensor:
    pairs = zip(as_tuple(output), as_tuple(target), strict=True)
    return torch.stack([(o - t).square().flatten(1).mean(1) for o, t in pairs]).sum(0)


class WithNorm(nn.Module):
    """A convolution, batch normalisation with statistics of its own, dropout; the embedding is frozen."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Linear(6, 16)
        self.conv, self.norm, self.last = nn.Conv2d(1, 3, 2), nn.BatchNorm2d(3), nn.Linear(27, 4)
        self.embed.requires_grad_(False)
        self.norm.running_mean.fill_(0.2)
        self.norm.running_var.fill_(0.5)

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(self.conv(self.embed(x).unflatten(1, (1, 4, 4))))
        return self.last(F.dropout(F.relu(h).flatten(1), 0.5, self.training))


class TwoHeads(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body, self.left, self.right = nn.Linear(6, 5), nn.Linear(5, 2), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = torch.tanh(self.body(x))
        return self.left(h), self.right(h)


class Branches(MLP):
    """What `torch.func` cannot follow."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x if x.sum() > 0 else -x)


def case(name: str) -> tuple[nn.Module, Tensor, Tensors, Callable[[Any, Any], Tensor]]:
    """A network, inputs, targets and the loss."""
    g = torch.Generator().manual_seed(0)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        if name == "lenet":
            return LeNet5(), torch.rand(6, 1, 28, 28, generator=g), torch.arange(6), cross_entropy
        x = torch.randn(6, 6, generator=g)
        if name == "norm":
            return WithNorm(), x, torch.arange(6) % 4, cross_entropy
        if name == "heads":
            return TwoHeads(), x, (torch.randn(6, 2, generator=g), torch.randn(6, 3, generator=g)), squared_error
        return Branches(6, 2, [5]), x, torch.randn(6, 2, generator=g), squared_error


def trainable(network: nn.Module) -> list[str]:
    return [name for name, p in network.named_parameters() if p.requires_grad]


def the_same(x: Tensor, y: Tensors) -> WholeInputs:
    batch = Batch((x,), y, torch.arange(len(x)))
    return lambda _step: [(batch, 1.0)]


def loop(
    network: nn.Module, steps: list[Tensor], y: Tensors, loss: Callable[[Any, Any], Tensor], p: OverfitParams
) -> tuple[dict[str, Tensor], Tensor]:
    """θ_s and the losses (before, then after each step) of every sample; `steps`: the inputs of each step."""
    weights: list[dict[str, Tensor]] = []
    losses = []
    for i in range(len(steps[0])):
        net = copy.deepcopy(network).double().eval()
        parameters = [q for q in net.parameters() if q.requires_grad]
        make = torch.optim.SGD if p.optimizer == "sgd" else torch.optim.Adam
        optimizer = make(parameters, lr=p.lr)
        target = map_tensors(lambda t, i=i: t[i : i + 1], y)
        values: list[float] = []
        for step, x in enumerate(steps):
            value = loss(net(x[i : i + 1].double()), target).sum()
            values.append(value.item())
            if step == p.steps:
                break
            if p.until_converged and step and not values[-2] - values[-1] > p.tolerance * values[-2]:
                break
            optimizer.zero_grad()
            value.backward()
            optimizer.step()
        weights.append({name: q.detach() for name, q in net.named_parameters() if q.requires_grad})
        losses.append(torch.tensor(values + [values[-1]] * (p.steps + 1 - len(values)), dtype=torch.float64))
    return {name: torch.stack([w[name] for w in weights]) for name in weights[0]}, torch.stack(losses)


@pytest.mark.parametrize(("optimizer", "lr"), OPTIMIZERS)
@pytest.mark.parametrize("name", ["lenet", "norm", "heads", "branches"])
def test_all_layers_equal_the_loop(name: str, optimizer: str, lr: float) -> None:
    network, x, y, loss = case(name)
    p = overfit_params(optimizer=optimizer, lr=lr, steps=4)
    own = PerSampleNetwork(network, trainable(network), torch.float64)
    found = overfit_all_layers(own, the_same(x, y), len(x), loss, p)
    weights, losses = loop(network, [x] * 5, y, loss, p)
    assert own.together == (name != "branches")
    assert found.weights.keys() == weights.keys()
    assert not any(name.startswith("embed") for name in weights)
    for key, expected in weights.items():
        torch.testing.assert_close(found.weights[key], expected, rtol=1e-7, atol=1e-9)
    torch.testing.assert_close(found.loss_before_N, losses[:, 0], rtol=1e-10, atol=0)
    torch.testing.assert_close(found.loss_after_NS, losses[:, 1:], rtol=1e-7, atol=1e-12)
    assert (losses[:, -1] < losses[:, 0]).all()
    torch.testing.assert_close(loss(own.outputs(found.weights, (x,)), y), losses[:, -1], rtol=1e-7, atol=1e-12)


@pytest.mark.parametrize(("optimizer", "lr", "tolerance"), [("sgd", 0.3, 0.15), ("adam", 0.03, 0.05)])
def test_each_sample_stops_by_itself(optimizer: str, lr: float, tolerance: float) -> None:
    network, x, y, loss = case("norm")
    p = overfit_params(optimizer=optimizer, lr=lr, steps=5, until_converged=True, tolerance=tolerance)
    weights, losses = loop(network, [x] * 6, y, loss, p)
    stopped = (losses[:, -1] == losses[:, -2]).sum()
    assert 0 < stopped < len(x), "the case must have samples that stop and samples that go on"
    own = PerSampleNetwork(network, trainable(network), torch.float64)
    found = overfit_all_layers(own, the_same(x, y), len(x), loss, p)
    for key, expected in weights.items():
        torch.testing.assert_close(found.weights[key], expected, rtol=1e-7, atol=1e-9)
    torch.testing.assert_close(found.loss_after_NS, losses[:, 1:], rtol=1e-7, atol=1e-12)


@pytest.mark.parametrize(("optimizer", "lr"), OPTIMIZERS)
def test_inputs_of_each_step_in_parts(optimizer: str, lr: float) -> None:
    """Five points a sample under a loss that is their mean, in parts of two and three."""
    network = case("heads")[0].body
    g = torch.Generator().manual_seed(3)
    steps, y = [torch.randn(4, 5, 6, generator=g) for _ in range(4)], torch.randn(4, 5, 5, generator=g)

    def parts(step: int) -> list[tuple[Batch, float]]:
        x, ids = steps[step], torch.arange(4)
        return [(Batch((x[:, :2],), y[:, :2], ids), 0.4), (Batch((x[:, 2:],), y[:, 2:], ids), 0.6)]

    p = overfit_params(optimizer=optimizer, lr=lr, steps=3)
    own = PerSampleNetwork(network, trainable(network), torch.float64)
    found = overfit_all_layers(own, parts, 4, squared_error, p)
    weights, losses = loop(network, steps, y, squared_error, p)
    for key, expected in weights.items():
        torch.testing.assert_close(found.weights[key], expected, rtol=1e-7, atol=1e-9)
    torch.testing.assert_close(found.loss_before_N, losses[:, 0], rtol=1e-10, atol=0)
    torch.testing.assert_close(found.loss_after_NS, losses[:, 1:], rtol=1e-7, atol=1e-12)


@pytest.mark.parametrize(("optimizer", "lr"), OPTIMIZERS)
@pytest.mark.parametrize("layer", ["0", "2"])
def test_where_only_one_layer_is_trainable_it_is_the_overfitting_of_that_layer(
    layer: str, optimizer: str, lr: float
) -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = nn.Sequential(nn.Linear(6, 8, bias=False), nn.Tanh(), nn.Linear(8, 3, bias=False))
    network.requires_grad_(False)
    network.get_submodule(layer).requires_grad_(True)
    _, x, _, _ = case("heads")
    y, p = torch.arange(6) % 3, overfit_params(optimizer=optimizer, lr=lr, steps=3)
    own = PerSampleNetwork(network, trainable(network), torch.float64)
    assert own.size == network.get_submodule(layer).weight.numel()
    whole = overfit_all_layers(own, the_same(x, y), len(x), cross_entropy, p)
    model = CutModel(network, layer)
    one = overfit(model, lambda _step: [StepPart(model.prefix((x,)), y)], cross_entropy, p)
    delta_NOI = whole.weights[f"{layer}.weight"] - network.get_submodule(layer).weight.detach()
    torch.testing.assert_close(delta_NOI, one.delta_NOI.double(), rtol=1e-4, atol=1e-7)
    torch.testing.assert_close(whole.loss_before_N, one.loss_before_N, rtol=1e-6, atol=1e-9)
    torch.testing.assert_close(whole.loss_after_NS, one.loss_after_NS, rtol=1e-5, atol=1e-9)


def test_a_sample_does_not_depend_on_the_others() -> None:
    network, x, y, loss = case("lenet")
    own = PerSampleNetwork(network, trainable(network), torch.float64)
    p = overfit_params()
    whole = overfit_all_layers(own, the_same(x, y), len(x), loss, p)
    alone = overfit_all_layers(own, the_same(x[3:4], y[3:4]), 1, loss, p)
    for key, weight in alone.weights.items():
        torch.testing.assert_close(weight[0], whole.weights[key][3], rtol=1e-9, atol=1e-12)


def bounded(output: Tensor, target: Tensor) -> Tensor:
    """A loss below 1 that has a gradient everywhere, so it stays finite where the parameters do not."""
    error = squared_error(output, target)
    return error / (1 + error)


def test_what_is_not_finite_is_an_error() -> None:
    network, x, _, _ = case("heads")
    network = network.body
    y = torch.zeros(6, 5)
    own = PerSampleNetwork(network, trainable(network), torch.float64)
    bad = x.clone()
    bad[2] = float("nan")
    with pytest.raises(
        UserError, match=r"the loss of 1 of 6 samples is not finite while overfitting; lower overfit\.lr"
    ):
        overfit_all_layers(own, the_same(bad, y), 6, squared_error, overfit_params())
    with pytest.raises(UserError, match=r"the loss of 6 of 6 samples is not finite while overfitting"):
        overfit_all_layers(own, the_same(x, y), 6, squared_error, overfit_params().model_copy(update={"lr": 1e200}))
    with pytest.raises(UserError, match=r"θ of 6 of 6 samples is not finite \(in float32\) after overfitting; lower"):
        overfit_all_layers(own, the_same(x, y), 6, bounded, overfit_params(steps=1).model_copy(update={"lr": 1e60}))


def test_the_number_of_samples_at_once_keeps_to_the_memory() -> None:
    network, x, y, _ = case("lenet")
    example = Batch((x[:1],), y[:1], torch.arange(1))
    values = 28 * 28 + 6 * 28 * 28 + 16 * 10 * 10 + 120 + 84 + 10
    double, single = (PerSampleNetwork(network, trainable(network), t) for t in (torch.float64, torch.float32))
    per_sample = 8 * (4 * double.size + 3 * values)
    p = overfit_params(memory_mb=100)
    assert samples_within(double, example, p) == 100 * 2**20 // per_sample
    assert samples_within(single, example, p) == 2 * 100 * 2**20 // per_sample
    assert samples_within(double, example, overfit_params(memory_mb=1)) == 1
    more = samples_within(double, example, overfit_params(memory_mb=100, optimizer="adam"))
    assert more == 100 * 2**20 // (8 * (7 * double.size + 3 * values))
