"""A network with parameters of its own for each sample, against a copy of the network per sample."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ocd_core.network.per_sample import PerSampleNetwork, Weights
from ocd_core.samples import Tensors, as_tuple


class Branches(nn.Module):
    """Its branch depends on values, so samples cannot be computed together."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.other = nn.Linear(4, 3), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.first(x) if x.sum() > 0 else self.other(x)


class Pairs(nn.Module):
    """Two inputs, one of integers; two outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.last = nn.Embedding(5, 4), nn.Linear(4, 2, bias=False)
        self.scale = nn.Parameter(torch.tensor(1.5))

    def forward(self, x: Tensor, kind: Tensor) -> tuple[Tensor, Tensor]:
        h = torch.tanh(self.table(kind) + x) * self.scale
        return self.last(h), h.sum(1)


def squared_error(output: Any, target: Any) -> Tensor:
    parts = [(o - t).square().flatten(1).sum(1) for o, t in zip(as_tuple(output), as_tuple(target), strict=True)
             if o.dim() > 1]  # fmt: skip
    return sum(parts[1:], parts[0])


def seeded(make: Any) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network: nn.Module = make()
        return network


def inputs_of(network: nn.Module, count: int) -> tuple[Tensor, ...]:
    g = torch.Generator().manual_seed(1)
    x = torch.randn(count, 4, generator=g)
    return (x, torch.arange(count) % 5) if isinstance(network, Pairs) else (x,)


def moved(weights: Weights) -> Weights:
    """Different parameters for each sample."""
    g = torch.Generator().manual_seed(2)
    return {n: w + 0.3 * torch.randn(w.shape, generator=g, dtype=w.dtype) for n, w in weights.items()}


def by_copies(
    network: nn.Module, weights: Weights, inputs: tuple[Tensor, ...], target: Tensors
) -> tuple[list[Tensors], list[Tensor], list[dict[str, Tensor]]]:
    """Output, loss and gradients of each sample from a copy of the network with its parameters, in float64."""
    outputs, losses, gradients = [], [], []
    for n in range(len(inputs[0])):
        own = copy.deepcopy(network).eval().double().requires_grad_(True)
        own.load_state_dict({name: weight[n] for name, weight in weights.items()}, strict=False)
        output = own(*(x[n : n + 1].double() if x.is_floating_point() else x[n : n + 1] for x in inputs))
        wanted = target[n : n + 1] if isinstance(target, Tensor) else tuple(t[n : n + 1] for t in target)
        loss = squared_error(output, wanted)
        loss.sum().backward()
        outputs.append(output)
        losses.append(loss.detach())
        named = dict(own.named_parameters())
        gradients.append({k: torch.zeros_like(named[k]) if named[k].grad is None else named[k].grad for k in weights})
    return outputs, losses, gradients


@pytest.mark.parametrize(
    ("make", "together"),
    [
        (Pairs, True),
        (Branches, False),
        (lambda: nn.Sequential(nn.Linear(4, 6), nn.BatchNorm1d(6), nn.Dropout(0.5), nn.ReLU(), nn.Linear(6, 3)), True),
        (lambda: nn.Sequential(nn.Unflatten(1, (2, 2)), nn.LSTM(2, 3, batch_first=True), First()), None),
    ],
)
def test_outputs_losses_and_gradients_equal_copies_of_the_network(make: Any, together: bool | None) -> None:
    network = seeded(make)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm1d):  # statistics that are not those of the batch
            module.running_mean += 0.3
            module.running_var *= 2
    names = [name for name, _ in network.named_parameters()]
    own = PerSampleNetwork(network, names, torch.float64)
    inputs = inputs_of(network, 5)
    weights = moved(own.start(5))
    output = own.outputs(weights, inputs)
    target = torch.ones_like(output) if isinstance(output, Tensor) else tuple(torch.ones_like(o) for o in output)
    outputs, losses, gradients = by_copies(network, weights, inputs, target)
    for n, expected in enumerate(outputs):
        for a, b in zip(as_tuple(output), as_tuple(expected), strict=True):
            torch.testing.assert_close(a[n : n + 1], b.detach(), rtol=1e-12, atol=1e-12)
    with torch.no_grad():  # as in an evaluation
        loss_N, found = own.gradients(weights, inputs, target, squared_error)
    torch.testing.assert_close(loss_N, torch.cat(losses), rtol=1e-12, atol=1e-12)
    for name in names:
        expected_grads = torch.stack([gradient[name] for gradient in gradients])
        torch.testing.assert_close(found[name], expected_grads, rtol=1e-10, atol=1e-12)
    assert together in (None, own.together)


class First(nn.Module):
    """The last state of a recurrent layer."""

    def forward(self, x: Any) -> Tensor:
        return x[0][:, -1]


def test_only_the_named_parameters_belong_to_samples() -> None:
    network = seeded(Pairs).train()
    before = copy.deepcopy(network.state_dict())
    own = PerSampleNetwork(network, ["last.weight", "scale"], torch.float64)
    assert own.size == 8 + 1
    weights = own.start(3)
    assert {name: tuple(weight.shape) for name, weight in weights.items()} == {"last.weight": (3, 2, 4), "scale": (3,)}
    weights["scale"].add_(1)
    assert own.start(1)["scale"].item() == 1.5
    inputs = inputs_of(network, 3)
    _, found = own.gradients(weights, inputs, (torch.ones(3, 2), torch.ones(3)), squared_error)
    assert found.keys() == weights.keys()
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert network.training
    assert own.together


def test_weights_of_another_precision_are_cast() -> None:
    network = seeded(Pairs)
    names = [name for name, _ in network.named_parameters()]
    double, single = (PerSampleNetwork(network, names, dtype) for dtype in (torch.float64, torch.float32))
    weights, inputs = moved(double.start(3)), inputs_of(network, 3)
    output = single.outputs(weights, inputs)[0]
    assert output.dtype == torch.float32
    torch.testing.assert_close(output.double(), double.outputs(weights, inputs)[0], rtol=1e-5, atol=1e-6)


def test_a_real_error_is_raised() -> None:
    own = PerSampleNetwork(seeded(Pairs), ["scale"], torch.float64)
    with pytest.raises(RuntimeError, match="size"):
        own.outputs(own.start(2), (torch.zeros(2, 7), torch.zeros(2, dtype=torch.int64)))
