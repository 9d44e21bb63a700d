import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import fx, nn

from ocd_core.scoring.double_ops import faster_graph, max_pool2d

pair = st.one_of(st.integers(1, 3), st.tuples(st.integers(1, 3), st.integers(1, 3)))
layouts = st.permutations(range(4))


def image(shape, layout, seed):
    """Normal numbers of a shape whose axes lie in memory in any order."""
    generator = torch.Generator().manual_seed(seed)
    stored = torch.randn([shape[i] for i in layout], generator=generator, dtype=torch.float64)
    return stored.permute([layout.index(i) for i in range(4)])


class Body(nn.Module):
    """A layer as a part of a network, so that it is traced as a call."""

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.Sequential(*layers)

    def forward(self, x):
        return self.layers(x)


@torch.no_grad()
def both(network, x):
    network = Body(network)
    return faster_graph(fx.symbolic_trace(network))(x), network(x)


@settings(max_examples=60)
@given(
    st.tuples(st.integers(1, 4), st.integers(1, 3), st.integers(1, 9), st.integers(1, 9)),
    layouts,
    pair,
    pair,
    st.one_of(st.integers(0, 2), st.tuples(st.integers(0, 2), st.integers(0, 2))),
    pair,
    st.integers(1, 4),
    st.booleans(),
    st.integers(0, 99),
)
def test_convolutions(shape, layout, kernel, stride, padding, dilation, units, with_bias, seed):
    torch.manual_seed(seed)
    layer = nn.Conv2d(shape[1], units, kernel, stride, padding, dilation, bias=with_bias).double()
    x = image(shape, layout, seed)
    try:
        with torch.no_grad():
            layer(x)
    except RuntimeError:  # the kernel is larger than the image
        with pytest.raises(RuntimeError):
            both(layer, x)
        return
    fast, expected = both(layer, x)
    torch.testing.assert_close(fast, expected, rtol=1e-12, atol=1e-12)


@settings(max_examples=60)
@given(
    st.tuples(st.integers(1, 4), st.integers(1, 3), st.integers(3, 9), st.integers(3, 9)),
    layouts,
    pair,
    st.one_of(st.none(), pair),
    st.integers(0, 1),
    pair,
    st.booleans(),
    st.integers(0, 99),
)
def test_poolings_have_the_same_bits(shape, layout, kernel, stride, padding, dilation, ceil_mode, seed):
    x = image(shape, layout, seed)
    x[0, 0, 0, 0] = torch.nan
    layer = nn.MaxPool2d(kernel, stride, padding, dilation, ceil_mode=ceil_mode)
    try:
        layer(x)
    except RuntimeError:  # no output is left, or the padding is too large
        return
    fast, expected = both(layer, x)
    assert torch.equal(fast.nan_to_num(-99.0), expected.nan_to_num(-99.0))


def test_it_takes_the_fast_path_and_leaves_the_rest_to_torch(monkeypatch):
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    calls = []
    monkeypatch.setattr("torch.baddbmm", lambda *a, _baddbmm=torch.baddbmm: calls.append(a) or _baddbmm(*a))
    for used, network, value in (
        (True, nn.Conv2d(3, 4, 3).double(), x),
        (False, nn.Conv2d(3, 4, 3), x.float()),
        (False, nn.Conv2d(3, 3, 3, groups=3).double(), x),
        (False, nn.Conv2d(3, 4, 3, padding="same").double(), x),
        (False, nn.Conv2d(3, 4, 3, padding=1, padding_mode="circular").double(), x),
        (False, nn.Conv2d(3, 4, 3, dilation=2).double(), x),
        (False, nn.Conv1d(3, 4, 3).double(), x[:, :, 0]),
        (False, nn.Conv2d(3, 4, 3).double(), x[0]),
        (False, nn.Conv2d(3, 4, 3).double(), x[:0]),
    ):
        calls.clear()
        fast, expected = both(network, value)
        torch.testing.assert_close(fast, expected)
        assert bool(calls) is used


class Pools(nn.Module):
    """Every way to write a ReLU and a pooling; some of the ReLUs have other readers."""

    def __init__(self) -> None:
        super().__init__()
        self.relu, self.in_place, self.pool = nn.ReLU(), nn.ReLU(inplace=True), nn.MaxPool2d(2)

    def forward(self, x):
        a = F.max_pool2d(F.relu(x), 2)
        b = self.pool(self.relu(x - 1))
        y = F.relu(x + 1)
        c = F.max_pool2d(y, kernel_size=2, stride=1) + y[..., 1:, 1:]
        z = 2 * x
        d = torch.max_pool2d(self.in_place(z), (2, 2)) + z[..., ::2, ::2]
        e, indices = F.max_pool2d(x.relu(), 2, return_indices=True)
        f = F.max_pool2d(torch.tanh(x.relu()), 2, None, 0, 1, False)
        g = F.max_pool2d(input=x, kernel_size=2)
        h = F.max_pool2d(F.relu(x - 0.5, inplace=True), 2)
        return torch.cat([a, b, d, e + indices, f, g, h], 1), c


def test_poolings_and_relus_in_every_spelling():
    x = torch.randn(3, 2, 8, 6, dtype=torch.float64)
    traced = fx.symbolic_trace(Pools())
    fast = faster_graph(traced)
    for got, expected in zip(fast(x.clone()), Pools()(x.clone()), strict=True):
        assert torch.equal(got, expected)
    order = [n.name for n in fast.graph.nodes]
    before = [n.name for n in traced.graph.nodes]
    assert before.index("relu") < before.index("max_pool2d")
    assert order.index("relu") > order.index("max_pool2d")  # on a quarter of the numbers
    assert sum(n.target is max_pool2d for n in fast.graph.nodes) == 7


def test_the_original_stays():
    network = fx.symbolic_trace(Body(nn.Conv2d(1, 2, 2), nn.ReLU(), nn.MaxPool2d(2)).double())
    code = network.code
    faster_graph(network)
    assert network.code == code
    assert type(network.layers.get_submodule("0")) is nn.Conv2d


def test_gradients_go_through_torch():
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64, requires_grad=True)
    network = fx.symbolic_trace(Body(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(2)).double())
    (expected,) = torch.autograd.grad(network(x).square().sum(), x)
    (got,) = torch.autograd.grad(faster_graph(network)(x).square().sum(), x)
    torch.testing.assert_close(got, expected)
