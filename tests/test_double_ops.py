import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from ocd_core.double_ops import fast_double_ops

pair = st.one_of(st.integers(1, 3), st.tuples(st.integers(1, 3), st.integers(1, 3)))
layouts = st.permutations(range(4))


def image(shape, layout, seed):
    """Normal numbers of a shape whose axes lie in memory in any order."""
    generator = torch.Generator().manual_seed(seed)
    stored = torch.randn([shape[i] for i in layout], generator=generator, dtype=torch.float64)
    return stored.permute([layout.index(i) for i in range(4)])


@torch.no_grad()
def both(function, *args):
    expected = function(*args)
    with fast_double_ops():
        return function(*args), expected


@settings(max_examples=120, deadline=None)
@given(
    st.tuples(st.integers(1, 4), st.integers(1, 3), st.integers(1, 9), st.integers(1, 9)),
    layouts, pair, pair, st.one_of(st.integers(0, 2), st.tuples(st.integers(0, 2), st.integers(0, 2))), pair,
    st.integers(1, 4), st.booleans(), st.integers(0, 99),
)  # fmt: skip
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


@settings(max_examples=120, deadline=None)
@given(
    st.tuples(st.integers(1, 4), st.integers(1, 3), st.integers(3, 9), st.integers(3, 9)), layouts, pair,
    st.one_of(st.none(), pair), st.integers(0, 1), pair, st.booleans(), st.integers(0, 99),
)  # fmt: skip
def test_poolings_have_the_same_bits(shape, layout, kernel, stride, padding, dilation, ceil_mode, seed):
    x = image(shape, layout, seed)
    x[0, 0, 0, 0] = torch.nan
    layer = nn.MaxPool2d(kernel, stride, padding, dilation, ceil_mode=ceil_mode)
    try:
        expected = layer(x)
    except RuntimeError:  # no output is left, or the padding is too large
        return
    with fast_double_ops():
        assert torch.equal(layer(x).nan_to_num(-99.0), expected.nan_to_num(-99.0))


def test_it_takes_the_fast_path_and_leaves_the_rest_to_torch(monkeypatch):
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    layer = nn.Conv2d(3, 4, 3).double()
    calls = []
    monkeypatch.setattr("torch.baddbmm", lambda *a, _baddbmm=torch.baddbmm: calls.append(a) or _baddbmm(*a))
    for used, network, value in (
        (True, layer, x),
        (False, nn.Conv2d(3, 4, 3), x.float()),
        (False, nn.Conv2d(3, 3, 3, groups=3).double(), x),
        (False, nn.Conv2d(3, 4, 3, padding="same").double(), x),
        (False, nn.Conv2d(3, 4, 3, dilation=2).double(), x),
        (False, nn.Conv1d(3, 4, 3).double(), x[:, :, 0]),
    ):
        calls.clear()
        fast, expected = both(network, value)
        torch.testing.assert_close(fast, expected)
        assert bool(calls) is used


def test_gradients_go_through_torch():
    x = torch.randn(2, 3, 8, 8, dtype=torch.float64, requires_grad=True)
    layer = nn.Conv2d(3, 4, 3).double()
    (expected,) = torch.autograd.grad(F.max_pool2d(layer(x), 2).square().sum(), x)
    with fast_double_ops():
        (got,) = torch.autograd.grad(F.max_pool2d(layer(x), 2).square().sum(), x)
    assert torch.equal(got, expected)
