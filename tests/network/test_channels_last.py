"""Convolutions with their channels innermost in memory: the same values."""

import torch
from torch import nn

from ocd_core.network.channels_last import lay_out, with_channels_last


def innermost(x: torch.Tensor) -> bool:
    return x.is_contiguous(memory_format=torch.channels_last)


def test_weights_are_laid_out_there_and_back() -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Conv2d(4, 5, 3), nn.Conv1d(3, 4, 3), nn.Linear(2, 2))
    first, second, *others = network
    before = [weight.clone() for weight in network.parameters()]
    assert lay_out(network, torch.channels_last, but=[second])
    assert innermost(first.weight)
    assert not innermost(second.weight)
    assert all(module.weight.is_contiguous() for module in others)
    assert lay_out(network, torch.contiguous_format)
    assert first.weight.is_contiguous()
    assert all(torch.equal(now, weight) for now, weight in zip(network.parameters(), before, strict=True))


def test_a_network_without_such_convolutions_stays() -> None:
    normed = nn.utils.parametrizations.weight_norm(nn.Conv2d(2, 3, 3))
    for network in (nn.Sequential(nn.Conv1d(2, 3, 3), nn.Linear(3, 2)), normed, nn.Sequential()):
        assert not lay_out(network, torch.channels_last)


def test_only_images_are_laid_out() -> None:
    image, vector = torch.randn(2, 3, 5, 4), torch.randn(2, 6)
    found = with_channels_last([image, vector])
    assert innermost(found[0])
    assert found[1] is vector
    assert torch.equal(found[0], image)
