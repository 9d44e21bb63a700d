"""A network run whole: what its layers read, and its output with theirs replaced."""

import pytest
import torch
from torch import Tensor, nn

from ocd_core.errors import UserError
from ocd_core.network.cut import CutModel
from ocd_core.network.whole import inputs_of_layers, output_with_layers, refuse_chained


class Heads(nn.Module):
    """Two heads on one tensor, which changes in place between them if `changes`."""

    def __init__(self, changes: bool = False) -> None:
        super().__init__()
        self.body, self.one, self.two = nn.Linear(4, 5), nn.Linear(5, 3), nn.Linear(5, 3)
        self.changes = changes

    def forward(self, x: Tensor) -> Tensor:
        h = self.body(x)
        first = self.one(input=h)
        if self.changes:
            h.relu_()
        return first - self.two(h)

    def pair(self) -> tuple[list[nn.Module], list[str]]:
        return [self.one, self.two], ["one", "two"]


class Chain(Heads):
    def __init__(self) -> None:
        super().__init__()
        self.two = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.two(torch.relu(self.one(self.body(x))))


class UsedTwice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(5, 5)
        self.idle = nn.Linear(5, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(torch.relu(self.fc(x)))


@pytest.fixture
def x() -> Tensor:
    torch.manual_seed(0)
    return torch.randn(6, 4)


def hooks(network: nn.Module) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in network.modules())


@torch.no_grad()
def test_layers_that_read_one_tensor_get_one_tensor(x: Tensor) -> None:
    net = Heads()
    first, second = inputs_of_layers(net, *net.pair(), [x])
    assert first is second
    assert torch.equal(first, net.body(x))
    assert hooks(net) == 0


@torch.no_grad()
def test_a_tensor_that_changes_meanwhile_is_kept_as_each_layer_read_it(x: Tensor) -> None:
    net = Heads(changes=True)
    first, second = inputs_of_layers(net, *net.pair(), [x])
    assert torch.equal(first, net.body(x))
    assert torch.equal(second, torch.relu(net.body(x)))


@torch.no_grad()
def test_the_output_is_that_of_the_layers_given_outputs(x: Tensor) -> None:
    net = Heads()
    a, b = torch.randn(6, 3), torch.randn(6, 3)
    assert torch.equal(output_with_layers(net, net.pair()[0], [a, b], [x]), a - b)
    assert torch.equal(output_with_layers(net, [net.two], [b], [x]), net.one(net.body(x)) - b)
    assert hooks(net) == 0
    assert torch.equal(net(x), net.one(net.body(x)) - net.two(net.body(x)))


@torch.no_grad()
def test_hooks_are_gone_after_an_error_of_the_network(x: Tensor) -> None:
    net = Heads()
    for use in (
        lambda: inputs_of_layers(net, *net.pair(), [x[:, :2]]),
        lambda: output_with_layers(net, [net.one], [x], [x[:, :2]]),
    ):
        with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
            use()
        assert hooks(net) == 0


@torch.no_grad()
def test_layers_one_behind_the_other_are_found_by_experiment(x: Tensor) -> None:
    net = Chain()
    with pytest.raises(UserError, match="layer 'two' reads the output of another of the layers"):
        refuse_chained(net, *net.pair(), [x])
    refuse_chained(net, [net.two], ["two"], [x])
    for changes in (False, True):
        net = Heads(changes)
        refuse_chained(net, *net.pair(), [x])


def test_a_layer_that_is_not_used_once() -> None:
    x = torch.zeros(4, 5)
    with pytest.raises(UserError, match="layer 'fc' is used 2 times in a forward pass; it must be used once"):
        CutModel(UsedTwice(), "fc").prefix((x,))
    with pytest.raises(UserError, match="layer 'idle' is used 0 times"):
        CutModel(UsedTwice(), "idle").prefix((x,))
