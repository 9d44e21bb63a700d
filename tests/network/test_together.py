"""Several layers that move as one matrix, against the plain network in float64 with each weight set by hand."""

import copy

import pytest
import torch
from torch import Tensor, nn

from ocd_core.errors import UserError
from ocd_core.network.cut import CutModel
from ocd_core.network.layers import find_layers
from ocd_core.overfit.params import NOT_REFINED, OverfitParams
from ocd_core.overfit.steps import StepPart, overfit
from ocd_core.samples import as_tuple


class Heads(nn.Module):
    """Two heads of 3 and 2 outputs. `own`: each has an input of its own; `branch`: fx cannot trace it."""

    def __init__(self, own: bool = False, branch: bool = False, bias: bool = True) -> None:
        super().__init__()
        self.own, self.branch = own, branch
        self.body = nn.Linear(5, 8)
        self.one = nn.Linear(4 if own else 8, 3)
        self.two = nn.Linear(4 if own else 8, 2, bias=bias)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = torch.tanh(self.body(x))
        if self.branch and float(h.detach().sum()) > 1e9:
            h = -h
        a, b = (h[:, :4], h[:, 4:]) if self.own else (h, h)
        return torch.relu(self.one(a)), self.two(b) * x[:, :2]


class Convolutions(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Conv2d(2, 3, 3, padding=1)
        self.two = nn.Conv2d(2, 4, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.one(x), torch.relu(self.two(x))], 1).mean((2, 3))


class OtherConvolutions(Convolutions):
    """One input, but as another matrix for each of the two."""

    def __init__(self) -> None:
        super().__init__()
        self.two = nn.Conv2d(2, 4, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.one(x).mean((2, 3)), torch.relu(self.two(x)).mean((2, 3))], 1)


CASES = {
    "one input": (Heads, (5,), 1, True),
    "one input, one bias": (lambda: Heads(bias=False), (5,), 1, True),
    "one input, not traced": (lambda: Heads(branch=True), (5,), 1, False),
    "own inputs": (lambda: Heads(own=True), (5,), 2, True),
    "own inputs, not traced": (lambda: Heads(own=True, branch=True), (5,), 2, False),
    "convolutions": (Convolutions, (2, 6, 5), 30, True),
    "other convolutions": (OtherConvolutions, (2, 6, 5), 34, True),
}


def build(case: str) -> tuple[nn.Module, Tensor, int, bool]:
    make, shape, positions, traced = CASES[case]
    with torch.random.fork_rng():
        torch.manual_seed(5)
        return make().eval(), torch.randn(4, *shape), positions, traced


@torch.no_grad()
def one_by_one(model: nn.Module, x: Tensor, delta_NOI: Tensor) -> list[Tensor]:
    """The outputs of each sample under its own Δ, of which the first rows are layer one's, the others layer two's."""
    found = []
    for i in range(len(x)):
        single = copy.deepcopy(model).double()
        start = 0
        for layer in (single.one, single.two):
            units = len(layer.weight)
            layer.weight += delta_NOI[i, start : start + units].reshape(layer.weight.shape)
            start += units
        found.append(as_tuple(single(x[i : i + 1].double())))
    return [torch.cat(parts) for parts in zip(*found, strict=True)]


@pytest.mark.parametrize("case", CASES)
def test_outputs_with_weights_of_each_samples_own(case: str) -> None:
    model, x, positions, traced = build(case)
    cut_model = CutModel(model, "one+two")
    cut = cut_model.prefix((x,))
    assert cut_model.traced == traced
    assert cut.x_NPI.shape[1] == positions
    generator = torch.Generator().manual_seed(3)
    delta = 0.3 * torch.randn(4, *cut_model.weight_OI.shape, dtype=torch.float64, generator=generator)
    for change in (torch.zeros_like(delta), delta):
        output = as_tuple(cut_model.forward(cut, change)[1])
        for found, wanted in zip(output, one_by_one(model, x, change), strict=True):
            torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)
    some = cut.select(torch.tensor([2, 0]))
    output = as_tuple(cut_model.forward(some, delta[[2, 0]])[1])
    for found, wanted in zip(output, as_tuple(cut_model.forward(cut, delta)[1]), strict=True):
        torch.testing.assert_close(found, wanted[[2, 0]])


@pytest.mark.parametrize("case", ["one input", "own inputs", "own inputs, not traced", "other convolutions"])
def test_overfitting_moves_both_as_a_plain_loop_does(case: str) -> None:
    model, x, _, _ = build(case)
    cut_model = CutModel(model, "one+two")
    params = OverfitParams(
        optimizer="adam", lr=0.01, steps=3, until_converged=False, tolerance=1e-3, replicas=1, precision="float64",
        layout="dense", refine=NOT_REFINED, memory_mb=64, shard_mb=1,
    )  # fmt: skip

    def loss(output: Tensor | tuple[Tensor, ...], target: Tensor) -> Tensor:
        return sum((part - 1).square().flatten(1).sum(1) for part in as_tuple(output)) + 0 * target

    part = StepPart(cut_model.prefix((x,)), torch.zeros(4, dtype=torch.float64))
    found = overfit(cut_model, lambda _step: [part], loss, params)
    for i in range(4):
        single = copy.deepcopy(model).double()
        moved = [single.one.weight, single.two.weight]
        before = [w.detach().clone() for w in moved]
        optimiser = torch.optim.Adam(moved, lr=0.01)
        for _ in range(3):
            optimiser.zero_grad()
            loss(single(x[i : i + 1].double()), torch.zeros(1)).sum().backward()
            optimiser.step()
        wanted = torch.cat([(w.detach() - b).flatten(1) for w, b in zip(moved, before, strict=True)])
        # the prefix is in float32, and Adam divides by the gradient's size
        torch.testing.assert_close(found.delta_NOI[i].double(), wanted, rtol=1e-3, atol=1e-5)


def test_the_activations_are_side_by_side() -> None:
    model, x, _, _ = build("one input")
    cut_model = CutModel(model, "one+two")
    activation = cut_model.forward(cut_model.prefix((x,)))[0]
    with torch.no_grad():
        h = torch.tanh(model.body(x))
        wanted = torch.cat([torch.relu(model.one(h)), model.two(h)], 1)
    torch.testing.assert_close(activation, wanted.double(), rtol=1e-5, atol=1e-5)


def test_the_factored_form_is_exact_for_layers_of_one_input() -> None:
    model, x, _, _ = build("one input")
    cut = CutModel(model, "one+two").prefix((x,))
    with torch.no_grad():
        torch.testing.assert_close(cut.layer_input_NI, torch.tanh(model.body(x)))
    assert CutModel(*[build("own inputs")[0], "one+two"]).prefix((x,)).layer_input_NI is None


class Chain(nn.Module):
    def __init__(self, branch: bool) -> None:
        super().__init__()
        self.branch = branch
        self.one, self.two, self.conv = nn.Linear(5, 5), nn.Linear(5, 5), nn.Conv1d(1, 2, 5)
        self.wide = nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        h = self.one(x)
        if self.branch and float(h.detach().sum()) > 1e9:
            h = -h
        return self.two(h)


@pytest.mark.parametrize("branch", [False, True])
def test_layers_one_behind_the_other_are_refused(branch: bool) -> None:
    with pytest.raises(UserError, match="layer 'two' reads the output of another of the layers"):
        CutModel(Chain(branch), "one+two").prefix((torch.ones(3, 5),))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("one+none", "layer 'none' does not exist"),
        ("one+one", "names a layer twice"),
        ("one+wide", "one is linear with 5, wide is linear with 6"),
        ("one+conv", "one is linear with 5, conv is conv with 5"),
        ("one+", "layer '' does not exist"),
    ],
)
def test_layers_that_make_no_matrix_are_refused(name: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        find_layers(Chain(False), name)


class Changed(nn.Module):
    """One tensor, which changes in place between the two layers that read it."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(5, 3), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = x * 2
        first = self.one(h)
        if float(h.detach().sum()) > 1e9:
            h = -h
        return first + self.two(h.relu_())


def test_a_tensor_that_changes_between_the_layers_is_two_inputs() -> None:
    torch.manual_seed(0)
    model, x = Changed(), torch.randn(4, 5)
    cut_model = CutModel(model, "one+two")
    cut = cut_model.prefix((x,))
    assert not cut_model.traced
    torch.testing.assert_close(cut.x_NPI, torch.stack([x * 2, torch.relu(x * 2)], 1))
