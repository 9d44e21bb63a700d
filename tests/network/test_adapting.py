"""Adaptation by entropy against a plain loop: a copy of the network, torch.optim.Adam, the entropy by hand."""

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ocd_core.models.lenet5 import LeNet5
from ocd_core.network.adapting import Adaptation, mean_entropy, moved_parameters
from ocd_core.network.cut import CutModel


class Normed(nn.Module):
    """A convolution and a linear layer with normalisation after the first, and dropout."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(1, 4, 3), norm
        self.last = nn.Linear(4 * 16, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.norm(self.conv(x))).flatten(1)
        return self.last(F.dropout(h, 0.5, self.training))


def batch_norm() -> nn.Module:
    norm = nn.BatchNorm2d(4)
    norm.running_mean.fill_(3.0)  # far from any batch's own
    norm.running_var.fill_(9.0)
    return norm


NETWORKS = {
    "batch norm": lambda: Normed(batch_norm()),
    "layer norm": lambda: Normed(nn.LayerNorm([4, 4, 4])),
    "group norm": lambda: Normed(nn.GroupNorm(2, 4)),
    "biases": lambda: LeNet5(10),
}
MOVED = {
    "biases": ["conv1.bias", "conv2.bias", "conv3.bias", "fc1.bias", "fc2.bias"],
}
LR = 0.01


def case(name: str) -> tuple[nn.Module, Tensor]:
    g = torch.Generator().manual_seed(0)
    size = 28 if name == "biases" else 6
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return NETWORKS[name](), torch.randn(3, 8, 1, size, size, generator=g)


def by_hand(network: nn.Module, moved: list[str], batches: Tensor, iterations: int, online: bool) -> list[Tensor]:
    """The outputs for each batch after its updates."""
    outputs = []
    net, optimizer = None, None
    for x in batches:
        if net is None or not online:
            net = copy.deepcopy(network).train()
            for module in net.modules():
                if not isinstance(module, nn.BatchNorm2d):
                    module.training = False
            parameters = dict(net.named_parameters())
            optimizer = torch.optim.Adam([parameters[n] for n in moved], lr=LR, betas=(0.9, 0.999), weight_decay=0)
        for _ in range(iterations):
            p_NC = net(x).softmax(1)
            entropy = -(p_NC * torch.log(p_NC)).sum(1)
            optimizer.zero_grad()
            entropy.mean().backward()
            optimizer.step()
        outputs.append(net(x).detach())
    return outputs


@pytest.mark.parametrize("online", [False, True])
@pytest.mark.parametrize("iterations", [1, 4])
@pytest.mark.parametrize("name", NETWORKS)
def test_it_equals_a_plain_loop(name: str, iterations: int, online: bool) -> None:
    network, batches = case(name)
    before = copy.deepcopy(network.state_dict())
    moved = MOVED.get(name, ["norm.weight", "norm.bias"])
    assert list(moved_parameters(network).names) == moved
    adaptation = Adaptation(network, moved, lambda out: F.log_softmax(out, -1), LR)
    found = []
    with torch.no_grad():  # as in an evaluation
        for x in batches:
            if not online:
                adaptation.reset()
            for _ in range(iterations):
                adaptation.update((x,))
            found.append(adaptation.output((x,)))
    for a, b in zip(found, by_hand(network, moved, batches, iterations, online), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
    assert network.training
    assert all(torch.equal(tensor, before[key]) for key, tensor in network.state_dict().items())
    assert (found[0].detach() - network.eval()(batches[0])).abs().max() > 1e-3


def test_a_cut_models_network_adapts_as_the_network_itself() -> None:
    network, batches = case("biases")
    outputs = []
    for one in (network, CutModel(network, "fc1").network):
        adaptation = Adaptation(one, MOVED["biases"], lambda out: F.log_softmax(out, -1), LR)
        adaptation.update((batches[0],))
        outputs.append(adaptation.output((batches[0],)))
    torch.testing.assert_close(*outputs, rtol=1e-4, atol=1e-6)


def test_batch_norm_uses_the_batch_without_any_update() -> None:
    network, batches = case("batch norm")
    adaptation = Adaptation(network, ["norm.weight", "norm.bias"], lambda out: F.log_softmax(out, -1), LR)
    torch.testing.assert_close(
        adaptation.output((batches[0],)), by_hand(network, ["norm.bias"], batches[:1], 0, online=False)[0]
    )


def test_what_is_frozen_stays() -> None:
    network, batches = case("batch norm")
    network.norm.requires_grad_(False)
    network.conv.bias.requires_grad_(False)
    moved = moved_parameters(network)
    assert (moved.names, moved.of_normalisation) == (("last.bias",), False)
    adaptation = Adaptation(network, moved.names, lambda out: F.log_softmax(out, -1), LR)
    torch.testing.assert_close(adaptation.output((batches[0],)), network.eval()(batches[0]))  # running statistics
    adaptation.update((batches[0],))
    change = adaptation.output((batches[0],)) - network(batches[0])
    torch.testing.assert_close(change, change[:1].expand_as(change), rtol=1e-3, atol=1e-5)
    assert change.abs().max() > LR / 2


@pytest.mark.parametrize(
    ("network", "names", "of_normalisation"),
    [
        (nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)), ("1.weight", "1.bias"), True),
        (nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2, affine=False)), ("0.bias",), False),
        (nn.LSTM(2, 3), ("bias_ih_l0", "bias_hh_l0"), False),
        (nn.Linear(2, 2, bias=False), (), False),
    ],
)
def test_what_moves(network: nn.Module, names: tuple[str, ...], of_normalisation: bool) -> None:
    moved = moved_parameters(network)
    assert (moved.names, moved.of_normalisation) == (names, of_normalisation)


def test_entropy_by_hand() -> None:
    p_NC: Any = torch.tensor([[0.5, 0.25, 0.25], [1.0, 0.0, 0.0]], dtype=torch.float64)
    log_NC = torch.where(p_NC > 0, p_NC, 1e-300).log()
    assert mean_entropy(log_NC).item() == pytest.approx((1.5 * torch.log(torch.tensor(2.0)).item()) / 2)
