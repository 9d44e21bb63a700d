"""Outputs in blocks of elements against the network as a whole."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from ocd_core.models.tinynerf import TinyNeRF
from ocd_core.network import blocks
from ocd_core.network.blocks import divide, network_outputs
from ocd_core.network.cut import CutModel
from ocd_core.network.layers import find_layers, weight_matrix
from ocd_core.network.moves import outputs_with_move


class PerElement(nn.Module):
    """Elements (N, E, 3) that do not depend on one another; `mean` is read by all of them, if there is one."""

    independent_elements = True

    def __init__(self, mixes: bool = False, shared: bool = False) -> None:
        super().__init__()
        self.fc = nn.Linear(3, 5)
        self.last = nn.Linear(5, 2)
        self.mixes, self.shared = mixes, shared

    def forward(self, x: Tensor) -> Tensor:
        h = torch.tanh(self.fc(x))
        if self.mixes:
            h = h - h.mean(1, keepdim=True)
        if self.shared:
            h = h * x.mean((1, 2))[:, None, None]
        out: Tensor = self.last(h)
        return out


@pytest.fixture
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "_BLOCK_BYTES", 64)


def _counted(monkeypatch: pytest.MonkeyPatch, model: CutModel) -> list[int]:
    """The number of elements in each pass of the tail, from now on."""
    found: list[int] = []
    forward = CutModel.forward

    def count(self, cut, delta_NOI=None):  # type: ignore[no-untyped-def]
        found.append(cut.layer_input.shape[1])
        return forward(self, cut, delta_NOI)

    monkeypatch.setattr(CutModel, "forward", count)
    return found


def _moved_outputs(network: nn.Module, layer: str, inputs: tuple[Tensor, ...], delta_NOI: Tensor) -> Tensor:
    """The plain network, sample by sample, with its weights changed in place and back."""
    weight, found = find_layers(network, layer)[0].weight, []
    before = weight.detach().clone()
    for i, delta in enumerate(delta_NOI):
        weight.data = before + delta
        found.append(network(*(x[i : i + 1] for x in inputs)))
    weight.data = before
    return torch.cat(found)


def _rays(samples: int, shape: tuple[int, ...]) -> tuple[Tensor, ...]:
    origins, directions = torch.randn(2, samples, *shape, 3)
    return origins, directions, torch.linspace(2, 6, 4).expand(samples, *shape, 4).contiguous()


@pytest.mark.usefixtures("_small_blocks")
@pytest.mark.parametrize("layer", ["layer1", "layer2", "layer3"])
@pytest.mark.parametrize("shape", [(7,), (5, 3)])
@pytest.mark.parametrize("precision", ["float32", "float64"])
@torch.no_grad()
def test_rays_in_blocks_give_the_networks_own_outputs(
    layer: str, shape: tuple[int, ...], precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    network = TinyNeRF(width=6, frequencies=2)
    model = CutModel(network, layer, precision)  # type: ignore[arg-type]
    inputs = _rays(3, shape)
    cut = model.prefix(inputs)
    delta_NOI = 0.3 * torch.randn(3, *weight_matrix(find_layers(network, layer)[0]).shape)
    wanted = _moved_outputs(network, layer, inputs, delta_NOI)
    first = outputs_with_move(model, cut, delta_NOI)
    assert model.divides
    passes = _counted(monkeypatch, model)
    later = outputs_with_move(model, cut, delta_NOI)
    assert len(passes) == shape[0]  # each block a single ray, or row of rays
    for found in (first, later):
        assert isinstance(found, Tensor)
        assert found.shape == wanted.shape
        torch.testing.assert_close(found.float(), wanted, rtol=1e-4, atol=1e-5)


@given(elements=st.integers(1, 40), count=st.integers(1, 12))
@torch.no_grad()
def test_blocks_hold_every_element_once_in_order(elements: int, count: int) -> None:
    model = CutModel(PerElement(), "fc")
    x = torch.randn(2, elements, 3)
    parts = list(divide(model.prefix((x,)), min(count, elements)))
    assert torch.equal(torch.cat([part.layer_input for part in parts], 1), x)
    assert torch.equal(torch.cat([part.x_NPI for part in parts], 1), x)
    assert max(part.layer_input.shape[1] for part in parts) <= -(-elements // min(count, elements))


@pytest.mark.usefixtures("_small_blocks")
@pytest.mark.parametrize("which", ["mixes", "shared"])
@torch.no_grad()
def test_a_network_whose_elements_depend_on_each_other_runs_as_a_whole(
    which: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    network = PerElement(**{which: True})
    model = CutModel(network, "fc")
    inputs = (torch.randn(2, 9, 3),)
    cut, delta_NOI = model.prefix(inputs), torch.randn(2, 5, 3)
    wanted = _moved_outputs(network, "fc", inputs, delta_NOI)
    torch.testing.assert_close(outputs_with_move(model, cut, delta_NOI), wanted.double(), rtol=1e-4, atol=1e-5)
    passes = _counted(monkeypatch, model)
    torch.testing.assert_close(outputs_with_move(model, cut, delta_NOI), wanted.double(), rtol=1e-4, atol=1e-5)
    assert passes == [9]


@pytest.mark.usefixtures("_small_blocks")
def test_gradients_pass_through_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    model = CutModel(PerElement(), "fc")
    cut = model.prefix((torch.randn(2, 9, 3),))
    passes = _counted(monkeypatch, model)
    delta_NOI = torch.zeros(2, 5, 3, requires_grad=True)
    output = outputs_with_move(model, cut, delta_NOI)
    assert isinstance(output, Tensor)
    output.sum().backward()
    assert passes == [9]
    assert delta_NOI.grad is not None


@torch.no_grad()
def test_a_small_sample_is_not_divided(monkeypatch: pytest.MonkeyPatch) -> None:
    model = CutModel(PerElement(), "fc")
    cut = model.prefix((torch.randn(2, 9, 3),))
    passes = _counted(monkeypatch, model)
    outputs_with_move(model, cut, torch.zeros(2, 5, 3))
    assert passes == [9]
    assert model.divides is None


def _sizes(monkeypatch: pytest.MonkeyPatch, kind: type[nn.Module]) -> list[int]:
    """The number of elements in each call of a whole network, from now on."""
    found: list[int] = []
    forward = kind.forward

    def count(self, *inputs):  # type: ignore[no-untyped-def]
        found.append(inputs[0].shape[1])
        return forward(self, *inputs)

    monkeypatch.setattr(kind, "forward", count)
    return found


@pytest.mark.usefixtures("_small_blocks")
@pytest.mark.parametrize("shape", [(7,), (5, 3)])
@torch.no_grad()
def test_a_whole_network_in_blocks(shape: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    network, inputs = TinyNeRF(width=6, frequencies=2).double(), tuple(x.double() for x in _rays(3, shape))
    wanted = torch.cat([network(*(x[i : i + 1] for x in inputs)) for i in range(3)])
    sizes = _sizes(monkeypatch, TinyNeRF)
    found = network_outputs(network, inputs)
    torch.testing.assert_close(found, wanted)
    assert sizes[-shape[0] :] == [1] * shape[0]


@pytest.mark.usefixtures("_small_blocks")
@pytest.mark.parametrize("which", ["mixes", "shared"])
@torch.no_grad()
def test_a_whole_network_whose_elements_depend_on_each_other(which: str, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    network, x = PerElement(**{which: True}), torch.randn(2, 9, 3)
    wanted = network(x)
    sizes = _sizes(monkeypatch, PerElement)
    torch.testing.assert_close(network_outputs(network, (x,)), wanted, rtol=0, atol=0)
    assert sizes[-1] == 9


@pytest.mark.usefixtures("_small_blocks")
@torch.no_grad()
def test_inputs_without_common_elements_are_not_divided() -> None:
    class Offset(PerElement):
        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            return super().forward(x) + y.mean()

    network, x = Offset(), torch.randn(2, 9, 3)
    for y in (torch.randn(2), torch.randn(2, 4)):
        torch.testing.assert_close(network_outputs(network, (x, y)), network(x, y), rtol=0, atol=0)


@torch.no_grad()
def test_a_small_sample_of_a_whole_network_is_not_divided(monkeypatch: pytest.MonkeyPatch) -> None:
    network, x = PerElement(), torch.randn(2, 9, 3)
    sizes = _sizes(monkeypatch, PerElement)
    network_outputs(network, (x,))
    assert sizes == [1, 9]  # the first tells how large an element is
