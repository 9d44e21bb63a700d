"""Per-sample weights on a batch, against whole networks whose weights are set one sample at a time."""

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from ocd_core.models.lenet5 import LeNet5
from ocd_core.network.cut import CutModel
from ocd_core.network.moves import base_pass, outputs_with_move, pass_from_cut, row_chunks, rows_within
from ocd_core.samples import Batch
from tests.support.arrays import ArrayTask
from tests.support.toy import PointSet

TASK = ArrayTask()


def batch_of(*inputs: Tensor) -> Batch:
    return Batch(inputs, torch.full((len(inputs[0]), 2), torch.nan), torch.arange(len(inputs[0])))


@pytest.fixture
def net() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return PointSet().eval()


@pytest.fixture
def points() -> Tensor:
    return torch.randn(5, 3, 4, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def one_by_one(net: nn.Module, layer: str, points: Tensor, delta_NOI: Tensor) -> Tensor:
    found = []
    for x, delta in zip(points.double(), delta_NOI.double(), strict=True):
        single = copy.deepcopy(net).double()
        single.get_submodule(layer).weight += delta
        found.append(single(x[None]))
    return torch.cat(found)


def test_a_base_pass_holds_the_networks_own_values(net: nn.Module, points: Tensor) -> None:
    model = CutModel(net, "head")
    base = base_pass(TASK, model, batch_of(points))
    with torch.no_grad():
        hidden = torch.relu(net.embed(points)).mean(1)
        output = net(points)
    torch.testing.assert_close(base.output, output.double(), rtol=1e-6, atol=1e-6)
    for found, wanted in zip(base.condition.parts(), (hidden, output, output), strict=True):
        assert found.dtype == torch.float32
        torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-6)
    again = pass_from_cut(TASK, model, batch_of(points), base.cut)
    assert torch.equal(again.output, base.output)
    assert again.cut is base.cut


@pytest.mark.parametrize("layer", ["head", "embed"])
def test_a_matrix_moves_each_samples_own_network(net: nn.Module, points: Tensor, layer: str) -> None:
    model = CutModel(net, layer)
    cut = model.prefix((points,))
    delta = torch.randn(5, *model.weight_OI.shape, generator=torch.Generator().manual_seed(2))
    wanted = one_by_one(net, layer, points, delta)
    torch.testing.assert_close(outputs_with_move(model, cut, delta), wanted, rtol=1e-5, atol=1e-6)


def test_the_change_of_the_layers_output_is_as_good_as_the_matrix(net: nn.Module, points: Tensor) -> None:
    model = CutModel(net, "head")
    cut = model.prefix((points,))
    delta = torch.randn(5, 2, 6, generator=torch.Generator().manual_seed(2))
    change = torch.stack([d @ i for d, i in zip(delta.double(), cut.layer_input_NI.double(), strict=True)])
    wanted = one_by_one(net, "head", points, delta)
    torch.testing.assert_close(outputs_with_move(model, cut, change), wanted, rtol=1e-5, atol=1e-6)


def test_a_move_has_a_gradient(net: nn.Module, points: Tensor) -> None:
    """Of a sum of outputs of a last layer, the gradient in its change is one, and in its matrix its input."""
    model = CutModel(net, "head")
    cut = model.prefix((points,))
    change, delta = torch.zeros(5, 2, requires_grad=True), torch.zeros(5, 2, 6, requires_grad=True)
    for move in (change, delta):
        outputs_with_move(model, cut, move).sum().backward()
    assert torch.equal(change.grad, torch.ones(5, 2))
    torch.testing.assert_close(delta.grad, cut.layer_input_NI[:, None].expand(5, 2, 6))


@given(rows=st.integers(0, 50), size=st.integers(1, 60))
def test_chunks_are_all_rows_in_their_order(rows: int, size: int) -> None:
    chunks = [list(range(rows))[chunk] for chunk in row_chunks(rows, size)]
    assert [row for chunk in chunks for row in chunk] == list(range(rows))
    assert all(len(chunk) == size for chunk in chunks[:-1])
    assert all(chunks)


def test_rows_within_a_memory_follow_it_and_are_never_none(net: nn.Module) -> None:
    model, example = CutModel(net, "head"), batch_of(torch.zeros(1, 3, 4))
    assert rows_within(model, example, 1e-6, matrices=1) == 1
    small, double = (rows_within(model, example, mb, matrices=1) for mb in (0.25, 0.5))
    assert double in (2 * small, 2 * small + 1)
    # per sample 12 inputs, 18 values of embed, 2 of head; i_L and a matrix of 2 x 6 numbers; 8 bytes each
    assert small == 2**18 // (8 * (3 * (12 + 18 + 2) + 2 * 6 + 12))
    assert rows_within(model, example, 0.25, matrices=10) == 2**18 // (8 * (3 * 32 + 2 * 6 + 120))


def test_on_a_cpu_the_activations_bound_the_rows() -> None:
    model, example = CutModel(LeNet5(), "fc2"), batch_of(torch.zeros(1, 1, 28, 28))
    values = 28 * 28 + 6 * 28 * 28 + 16 * 10 * 10 + 120 + 84 + 10
    assert rows_within(model, example, 1e6, matrices=1) == 2**24 // (4 * values)
    assert all(not m._forward_hooks for m in model.network.modules())


def test_a_deep_network_has_few_activations_at_once() -> None:
    """Ten equal layers: with all activations in the bound, batches would be a third as large."""
    deep = nn.Sequential(*(nn.Linear(50, 50) for _ in range(10)))
    assert rows_within(CutModel(deep, "9"), batch_of(torch.zeros(1, 50)), 1e6, matrices=1) == 2**24 // (4 * 4 * 50)
    shallow = nn.Sequential(nn.Linear(50, 50), nn.Linear(50, 50))
    assert rows_within(CutModel(shallow, "1"), batch_of(torch.zeros(1, 50)), 1e6, matrices=1) == 2**24 // (4 * 150)


def test_the_layers_output_is_kept_if_it_has_one_position(net: nn.Module, points: Tensor) -> None:
    assert base_pass(TASK, CutModel(net, "embed"), batch_of(points)).z_NPO is None
    model = CutModel(net, "head")
    base = base_pass(TASK, model, batch_of(points))
    assert base.z_NPO is not None
    assert torch.equal(base.z_NPO, model.layer_output(base.cut))
    change = torch.randn(5, len(model.weight_OI), generator=torch.Generator().manual_seed(3))
    wanted = outputs_with_move(model, base.cut, change)
    assert torch.equal(outputs_with_move(model, base.cut, change, base.z_NPO), wanted)
    assert torch.equal(outputs_with_move(model, base.cut, change, base.z_NPO), wanted)  # it stays as it is
