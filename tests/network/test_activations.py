"""Activations counted by hand."""

import torch
from torch import nn

from ocd_core.models.lenet5 import LeNet5
from ocd_core.network.activations import count_values


def test_lenet5() -> None:
    """The input, each layer's outputs, and what pooling leaves; the largest is the first convolution's output."""
    values, largest = count_values(LeNet5(classes=10), [torch.zeros(1, 1, 28, 28)])
    assert largest == 6 * 28 * 28
    assert values >= 28 * 28 + 6 * 28 * 28 + 16 * 10 * 10 + 120 + 84 + 10


def test_leaves_count_and_nothing_stays_behind() -> None:
    network = nn.Sequential(nn.Linear(3, 5), nn.Sequential(nn.ReLU(), nn.Linear(5, 2)))
    assert count_values(network, [torch.zeros(4, 3)]) == (4 * (3 + 5 + 5 + 2), 4 * 5)
    assert not any(module._forward_hooks for module in network.modules())


def test_the_input_may_be_the_largest() -> None:
    assert count_values(nn.Linear(9, 2), [torch.zeros(1, 9)]) == (9 + 2, 9)
