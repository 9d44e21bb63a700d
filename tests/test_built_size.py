"""Networks are built no larger than the weights beside their description."""

from pathlib import Path

import pytest
import torch
from torch import nn

from ocd_core.built_size import build_bounded, no_larger_than
from ocd_core.errors import UserError

SHAPES = [(8, 4), (8,)]
WHERE = Path("model.safetensors")


def test_the_network_that_the_weights_fit_is_as_without_a_bound() -> None:
    torch.manual_seed(3)
    plain = nn.Linear(4, 8)
    after = torch.rand(1)
    torch.manual_seed(3)
    bounded = build_bounded(lambda: nn.Linear(4, 8), SHAPES, WHERE)
    assert torch.equal(bounded.weight, plain.weight)
    assert torch.equal(torch.rand(1), after)  # the trial draws no random numbers
    assert bounded.weight.device.type == "cpu"


@pytest.mark.parametrize("kind", ["a wide layer", "a buffer", "many layers"])
def test_a_larger_one_is_refused_before_it_takes_memory(kind: str) -> None:
    def build() -> nn.Module:
        if kind == "a wide layer":
            return nn.Linear(2**17, 2**17)  # 64 GiB
        if kind == "many layers":
            return nn.Sequential(*(nn.Linear(1, 1) for _ in range(10_000)))
        network = nn.Module()
        network.register_buffer("table", torch.zeros(2**34))
        return network

    with pytest.raises(UserError, match=r"model.safetensors holds 40 numbers in 2 tensors, but .* many times as large"):
        build_bounded(build, SHAPES, WHERE)


def test_only_the_block_is_bounded() -> None:
    with no_larger_than(SHAPES, WHERE):
        nn.Linear(4, 8)
    nn.Sequential(*(nn.Linear(1, 1) for _ in range(10_000)))


def test_errors_of_building_come_through() -> None:
    with pytest.raises(ValueError, match="of its own"):
        build_bounded(lambda: (_ for _ in ()).throw(ValueError("of its own")), SHAPES, WHERE)
    with (
        pytest.raises(UserError, match=r"too little memory for the network .*model.safetensors"),
        no_larger_than([], WHERE),
    ):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
