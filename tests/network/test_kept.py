"""Cuts from the stored i_L against the prefix itself, and where i_L is not enough."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ocd_core.models.lenet5 import LeNet5
from ocd_core.network.cut import CutModel
from ocd_core.network.kept import kept_prefix
from ocd_core.network.moves import base_pass
from ocd_core.samples import Batch, Condition, Samples, whole_split
from ocd_core.tasks.images.task import ImageClassification
from tests.network.test_cut import ConvNet, Positions, Residual
from tests.tasks.images.test_task import image_data


class Two(nn.Module):
    """Two heads that read different parts of one tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(5, 8)
        self.one, self.other = nn.Linear(4, 3), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        tokens = torch.tanh(self.body(x)).unflatten(1, (2, 4))
        return self.one(tokens[:, 0]) + self.other(tokens[:, 1])


class Data:
    """Inputs of 11 samples."""

    def __init__(self, *shape: int) -> None:
        self.x = torch.randn(11, *shape, generator=torch.Generator().manual_seed(1))

    def __len__(self) -> int:
        return len(self.x)

    def batch(self, sample_id: Tensor) -> Batch:
        return Batch((self.x[sample_id],), sample_id % 3, sample_id)


def task() -> ImageClassification:
    return ImageClassification(image_data(), "mlp", {})


def condition(model: CutModel, data: Data) -> Condition:
    return base_pass(task(), model, data.batch(whole_split(data))).condition


CASES: dict[str, tuple[Callable[[], nn.Module], str, tuple[int, ...]]] = {
    "last of a LeNet5": (LeNet5, "fc2", (1, 28, 28)),
    "a convolution of a LeNet5": (LeNet5, "conv2", (1, 28, 28)),
    "a convolution with padding": (lambda: ConvNet(padding=1, stride=2), "conv", (2, 7, 5)),
    "a convolution padded by reflection": (lambda: ConvNet(padding=1, padding_mode="reflect"), "conv", (2, 7, 5)),
    "a layer at several positions": (Positions, "last", (3, 4)),
    "one of two heads": (Two, "other", (5,)),
    "two heads": (Two, "one+other", (5,)),
}


@pytest.mark.parametrize("name", CASES)
def test_cuts_are_those_of_the_prefix(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    make, layer, shape = CASES[name]
    torch.manual_seed(0)
    model, data = CutModel(make(), layer), Data(*shape)
    rows = torch.tensor([7, 0, 7, 10])
    wanted = model.prefix(data.batch(rows).inputs)
    if name == "one of two heads":  # the tail also reads the other token
        assert kept_prefix(task(), model, Samples(data, condition(model, data))) is None
        return
    kept = kept_prefix(task(), model, Samples(data, condition(model, data)))
    assert kept is not None

    def never(*_args: Any) -> None:
        raise AssertionError("the prefix must not run")

    monkeypatch.setattr(CutModel, "prefix", never)
    found = kept.cut(rows)
    torch.testing.assert_close(found.x_NPI, wanted.x_NPI)
    torch.testing.assert_close(found.layer_input, wanted.layer_input)
    delta_NOI = 0.1 * torch.randn(4, *model.weight_OI.shape)
    for one, other in zip(model.forward(found, delta_NOI), model.forward(wanted, delta_NOI), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


def test_where_the_tail_needs_more() -> None:
    """What skips the layer is not in the store."""
    model, data = CutModel(Residual(), "fc"), Data(5)
    assert kept_prefix(task(), model, Samples(data, condition(model, data))) is None


def test_another_i_l_is_not_taken_for_the_prefix() -> None:
    model, data = CutModel(LeNet5(), "fc2"), Data(1, 28, 28)
    found = condition(model, data)
    i_l = found.layer_input
    for other in (i_l + 1, i_l[:, :5], F.pad(i_l, (0, 1)), i_l[:, :0]):
        assert kept_prefix(task(), model, Samples(data, replace(found, layer_input=other))) is None


def test_another_i_l_in_few_samples_is_not_taken_for_the_prefix() -> None:
    model, data = CutModel(LeNet5(), "fc2"), Data(1, 28, 28)
    found = condition(model, data)
    i_l = found.layer_input.clone()
    i_l[9] = 0
    assert kept_prefix(task(), model, Samples(data, replace(found, layer_input=i_l))) is None


class Untraceable(nn.Module):
    """Which way it goes depends on its input."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x) if float(x.sum()) > 0 else self.fc(2 * x)


def test_a_network_that_runs_as_a_whole_is_not_cut() -> None:
    model, data = CutModel(Untraceable(), "fc"), Data(5)
    found = condition(model, data)
    assert not model.traced
    assert kept_prefix(task(), model, Samples(data, found)) is None


class TwoStreams(nn.Module):
    """Two convolutions that read different images."""

    def __init__(self) -> None:
        super().__init__()
        self.conv_a, self.conv_b = nn.Conv2d(2, 3, 3), nn.Conv2d(2, 3, 3)

    def forward(self, x: Tensor) -> Tensor:
        return (self.conv_a(x[:, 0]).flatten(1) + self.conv_b(torch.tanh(x[:, 1])).flatten(1)).flatten(1)


def test_convolutions_of_separate_inputs_are_not_kept() -> None:
    model, data = CutModel(TwoStreams(), "conv_a+conv_b"), Data(2, 2, 6, 5)
    assert kept_prefix(task(), model, Samples(data, condition(model, data))) is None
