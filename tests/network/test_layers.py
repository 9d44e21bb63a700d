"""Layers found by name, and a convolution as a matrix product."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from ocd_core.errors import UserError
from ocd_core.models.lenet5 import LeNet5
from ocd_core.models.mlp import MLP
from ocd_core.network.cut import CutModel
from ocd_core.network.layers import (
    bias_vector,
    find_layers,
    input_matrix,
    layer_kind,
    layer_names,
    matrix_layers,
    see_the_same,
    weight_matrix,
)

# torch says so of even kernels, which are among the cases
pytestmark = pytest.mark.filterwarnings("ignore:Using padding=.same. with even kernel")


@settings(max_examples=40)
@given(
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 4)),
    stride=st.tuples(st.integers(1, 3), st.integers(1, 2)),
    dilation=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    padding=st.one_of(st.tuples(st.integers(0, 2), st.integers(0, 2)), st.just("valid"), st.just("same")),
    mode=st.sampled_from(["zeros", "circular", "reflect", "replicate"]),
    bias=st.booleans(),
)
def test_any_convolution_is_a_matrix_product(
    kernel: tuple[int, int], stride: tuple[int, int], dilation: tuple[int, int], padding: object, mode: str, bias: bool
) -> None:
    if padding == "same":
        stride = (1, 1)
    generator = torch.Generator().manual_seed(0)
    layer = nn.Conv2d(
        2, 3, kernel, stride=stride, dilation=dilation, padding=padding, padding_mode=mode, bias=bias
    ).double()
    value = torch.randn(2, 2, 9, 10, dtype=torch.float64, generator=generator)
    wanted = layer(value).detach()
    z_NPO = input_matrix(layer, value) @ weight_matrix(layer).T + (layer.bias.detach() if bias else 0)
    torch.testing.assert_close(z_NPO.transpose(1, 2).reshape(wanted.shape), wanted, rtol=1e-12, atol=1e-12)


class Grouped(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.grouped = nn.Conv2d(4, 4, 3, groups=2)
        self.norm = nn.BatchNorm2d(4)
        self.body = nn.Sequential(nn.Conv1d(2, 2, 1), nn.ReLU(), nn.Linear(3, 2))


def test_matrix_layers_in_order_and_their_kinds() -> None:
    layers = matrix_layers(LeNet5())
    assert list(layers) == ["conv1", "conv2", "conv3", "fc1", "fc2"]
    assert [layer_kind(m) for m in layers.values()] == ["conv", "conv", "conv", "linear", "linear"]
    assert list(matrix_layers(Grouped())) == ["body.0", "body.2"]
    assert weight_matrix(layers["conv2"]).shape == (16, 6 * 5 * 5)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nope", "layer 'nope' does not exist; the layers to choose from are body.0, body.2"),
        ("", "layer '' does not exist"),
        ("norm", "layer 'norm' is a BatchNorm2d, whose weight is not a matrix"),
        ("body", "layer 'body' is a Sequential"),
        (
            "grouped",
            r"'grouped' is a Conv2d with 2 groups, whose weight is not a matrix .*groups.*body\.0, body\.2",
        ),
    ],
)
def test_layers_that_cannot_be_selected(name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        find_layers(Grouped(), name)
    with pytest.raises(UserError, match=message):
        CutModel(Grouped(), name)


def test_a_weight_that_two_layers_share() -> None:
    model = MLP(5, 5, [5])
    model.layers[1].weight = model.layers[0].weight
    with pytest.raises(UserError, match=r"'layers\.0' shares its weight with 'layers\.1'"):
        CutModel(model, "layers.0")


def test_one_layer_is_seen_without_a_copy_and_several_are_stacked() -> None:
    torch.manual_seed(0)
    first, second = nn.Conv2d(2, 3, 2), nn.Conv2d(2, 4, 2, bias=False)
    assert weight_matrix(first).data_ptr() == first.weight.data_ptr()
    stacked = weight_matrix(first, second)
    assert stacked.shape == (7, 8)
    for row, kernel in zip(stacked, [*first.weight, *second.weight], strict=True):
        assert row.tolist() == kernel.flatten().tolist()
    assert bias_vector(first, second).tolist() == [*first.bias.tolist(), 0, 0, 0, 0]
    assert bias_vector(second) is None
    assert torch.equal(bias_vector(first), first.bias)


def test_layers_together_keep_the_order_of_the_name() -> None:
    model = MLP(5, 5, [5])
    assert layer_names("layers.1+layers.0") == ("layers.1", "layers.0")
    assert find_layers(model, "layers.1+layers.0") == (model.layers[1], model.layers[0])
    model = LeNet5()
    with pytest.raises(UserError, match="'fc1\\+fc1' names a layer twice"):
        find_layers(model, "fc1+fc1")
    with pytest.raises(UserError, match="conv1 is conv with 25, fc1 is linear with"):
        find_layers(model, "conv1+fc1")


@pytest.mark.parametrize(
    "options",
    [{"stride": 2}, {"padding": 1}, {"dilation": 2}, {"kernel_size": 2}, {"padding": 1, "padding_mode": "circular"}],
)
def test_layers_see_the_same_if_one_matrix_serves_both(options: dict[str, object]) -> None:
    """Layers that turn an input into equal matrices, whatever their widths; another option gives another matrix."""
    value = torch.randn(2, 2, 6, 6, generator=torch.Generator().manual_seed(0))
    plain, wide = nn.Conv2d(2, 3, 3), nn.Conv2d(2, 5, 3, bias=False)
    assert see_the_same(plain, wide)
    assert torch.equal(input_matrix(plain, value), input_matrix(wide, value))
    other = nn.Conv2d(**{"in_channels": 2, "out_channels": 3, "kernel_size": 3, **options})
    assert not see_the_same(plain, other)
    found, wanted = input_matrix(other, value), input_matrix(plain, value)
    assert found.shape != wanted.shape or not torch.equal(found, wanted)


def test_an_input_without_a_sample_axis_is_refused() -> None:
    with pytest.raises(UserError, match="the selected layer's input has no sample axis"):
        input_matrix(nn.Linear(5, 2), torch.zeros(5))


def test_a_linear_layer_sees_every_position() -> None:
    value = torch.arange(24.0).reshape(2, 3, 4)
    assert input_matrix(nn.Linear(4, 1), value).tolist() == value.tolist()
    assert input_matrix(nn.Linear(4, 1), value[:, 0]).shape == (2, 1, 4)
