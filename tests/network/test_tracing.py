"""Prefix and tail of a traced network against the network itself."""

import pytest
import torch
from torch import Tensor, nn

from ocd_core.errors import UserError
from ocd_core.network.cut import CutModel
from ocd_core.network.tracing import named_leaves, trace


class Fork(nn.Module):
    """Two layers side by side, of which one has an activation; an early value is read again at the end."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.one, self.two = nn.Linear(4, 5), nn.Linear(5, 3), nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.tanh(self.body(x))
        return torch.relu(self.one(h)) * self.two(h) + x[:, :3]


class Chain(Fork):
    def __init__(self) -> None:
        super().__init__()
        self.two = nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.two(torch.relu(self.one(torch.tanh(self.body(x)))))


class TiedByHand(nn.Module):
    """A decoder that is the transposed encoder."""

    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x) @ self.fc.weight


class Branch(Fork):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x if float(x.sum()) > 0 else -x)


class Reused(Fork):
    def forward(self, x: Tensor) -> Tensor:
        h = torch.tanh(self.body(x))
        return self.one(h) + self.one(-h)


class Unread(Fork):
    """The layer's output never reaches the network's."""

    def forward(self, x: Tensor) -> Tensor:
        self.one(self.body(x))
        return x


def layer_inputs(model: nn.Module, x: Tensor) -> Tensor:
    return torch.tanh(model.body(x))


@pytest.mark.parametrize("names", [("one",), ("two",), ("one", "two"), ("body",)])
def test_prefix_and_tail_make_up_the_network(names: tuple[str, ...]) -> None:
    torch.manual_seed(0)
    model, x = Fork(), torch.randn(6, 4)
    graphs = trace(model, names)
    assert graphs is not None
    found = graphs.prefix(x)
    inputs, context = found[: len(names)], found[len(names) :]
    wanted = x if names == ("body",) else layer_inputs(model, x)
    assert all(torch.equal(value, wanted) for value in inputs)
    outs = [model.get_submodule(name)(value) for name, value in zip(names, inputs, strict=True)]
    taps, output, observed = graphs.tail(*outs, *context)
    assert torch.equal(output, model(x))
    assert observed == ()
    assert not graphs.observes
    activation = {"one": torch.relu, "two": lambda z: z, "body": torch.tanh}
    for name, out, tap in zip(names, outs, taps, strict=True):
        assert torch.equal(tap, activation[name](out))


def test_the_tail_follows_the_layers_output_and_not_the_inputs() -> None:
    torch.manual_seed(0)
    model, x = Fork(), torch.randn(6, 4)
    graphs = trace(model, ["one"])
    assert graphs is not None
    _, *context = graphs.prefix(x)
    other = torch.randn(6, 3)
    wanted = torch.relu(other) * model.two(layer_inputs(model, x)) + x[:, :3]
    assert torch.equal(graphs.tail(other, *context)[1], wanted)


@pytest.mark.parametrize("model", [Branch, Reused, Unread])
def test_what_cannot_be_cut_gives_none(model: type[nn.Module]) -> None:
    assert trace(model(), ["one"]) is None


def test_a_weight_that_is_read_outside_of_its_layer() -> None:
    for use in (lambda m: trace(m, ["fc"]), lambda m: CutModel(m, "fc")):
        with pytest.raises(UserError, match="also reads the weight of layer 'fc' outside the layer"):
            use(TiedByHand())


def test_layers_one_behind_the_other_are_refused() -> None:
    with pytest.raises(UserError, match="layer 'two' reads the output of another of the layers to move as one"):
        trace(Chain(), ["one", "two"])


def test_leaves_by_name_and_by_type() -> None:
    model = Fork()
    model.fx_leaves = ("two", nn.Linear)
    assert named_leaves(model) == [model.two, model.body, model.one, model.two]
    assert named_leaves(Fork()) == []


@pytest.mark.parametrize("leaf", ["nothing", 3, Tensor])
def test_a_leaf_that_is_none_is_refused(leaf: object) -> None:
    model = Fork()
    model.fx_leaves = (leaf,)
    for use in (named_leaves, lambda m: CutModel(m, "one")):
        with pytest.raises(UserError, match=r"fx_leaves of Fork holds .* neither the name of one of its modules"):
            use(model)


class Named(nn.Module):
    """A layer with a given name, and one behind it."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        self.add_module(name, nn.Linear(4, 5))
        self.out = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        layer = getattr(self, self.name)
        assert isinstance(layer, nn.Module)
        return self.out(torch.relu(layer(x)))


@pytest.mark.parametrize("name", ["<b>|名 前'", 'a"b', "a\\", "a\nb", "\u202e", "\ud800"])
def test_layers_of_any_name_move(name: str) -> None:
    """fx writes names into code; those that it cannot write make the whole model run."""
    model = Named(name).eval()
    assert (trace(model, [name]) is None) == (name != "<b>|名 前'")
    cut_model, x = CutModel(model, name, "float32"), torch.randn(2, 4)
    cut = cut_model.prefix([x])
    torch.testing.assert_close(cut_model.forward(cut)[1], model(x))
    delta_NOI = torch.randn(2, 5, 4)
    move_NO = (delta_NOI @ x[..., None])[..., 0]
    moved = model.out(torch.relu(model.get_submodule(name)(x) + move_NO))
    torch.testing.assert_close(cut_model.forward(cut, delta_NOI)[1], moved)
