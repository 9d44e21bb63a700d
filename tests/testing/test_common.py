"""What the checks share, against plain Python."""

import itertools
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from ocd_core.samples import Batch
from ocd_core.testing.common import (
    as_double,
    close,
    described,
    doubled,
    equal,
    finite,
    require,
    row,
    some_ids,
    spread_ids,
)
from tests.support.arrays import ArraySplit


def split(rows: int) -> ArraySplit:
    return ArraySplit(torch.zeros(rows, 3), torch.zeros(rows, 2))


def batch() -> Batch:
    x, index = torch.arange(6.0).view(3, 2), torch.tensor([4, 5, 6])
    return Batch((x, index), (x + 1, index), torch.arange(3))


def test_an_assertion_says_what_is_wrong() -> None:
    require(True, "never")
    with pytest.raises(AssertionError, match=r"^what is wrong$"):
        require(False, "what is wrong")


@pytest.mark.parametrize("rows", [1, 2, 4, 9])
def test_some_rows_are_out_of_order_and_one_comes_twice(rows: int) -> None:
    ids = some_ids(split(rows)).tolist()
    assert set(ids) == set(range(min(rows, 4)))
    assert len(ids) == len(set(ids)) + 1
    assert rows == 1 or ids != sorted(ids)


@given(rows=st.integers(1, 40), count=st.integers(1, 60))
def test_rows_are_spread_evenly(rows: int, count: int) -> None:
    ids = spread_ids(split(rows), count).tolist()
    assert len(ids) == count
    assert ids == sorted(ids)
    assert ids[0] >= 0
    assert ids[-1] == (rows - 1 if count > 1 else 0)
    steps = [b - a for a, b in itertools.pairwise(ids)]
    assert not steps or max(steps) - min(steps) <= 1


@given(
    value=st.lists(st.floats(-1e3, 1e3), min_size=1, max_size=5),
    off=st.floats(0, 1e-2),
    tolerance=st.sampled_from([0.0, 1e-5, 1e-3]),
)
def test_close_is_within_a_share_of_the_largest_number(value: list[float], off: float, tolerance: float) -> None:
    b = torch.tensor(value, dtype=torch.float64)
    a = b.clone()
    a[-1] += off
    wanted = abs(float(a[-1]) - value[-1]) <= tolerance * max(max(map(abs, value)), 1e-30)
    assert close(a, b, tolerance) == wanted
    assert close((b, a), (b, b), tolerance) == wanted


def test_values_of_another_structure_or_shape_are_not_close() -> None:
    x = torch.ones(2, 1)
    assert not close(x, torch.ones(2, 2), 1.0)
    assert not close((x, x), x, 1.0)
    assert not close(torch.tensor([math.nan]), torch.ones(1), 1.0)
    assert close(torch.zeros(0), torch.zeros(0), 0.0)


def test_whole_numbers_are_finite() -> None:
    assert finite((torch.tensor([1, 2]), torch.ones(2)))
    for bad in (math.nan, math.inf):
        assert not finite((torch.ones(2), torch.tensor([1.0, bad])))


def test_batches_are_equal_by_inputs_and_targets() -> None:
    one = batch()
    assert equal(one, Batch(one.inputs, one.target, torch.zeros(3, dtype=torch.int64)))
    assert not equal(one, Batch(one.inputs[:1], one.target, one.sample_id))
    assert not equal(one, Batch(one.inputs, (one.target[0] + 1, one.target[1]), one.sample_id))
    assert [x.tolist() for x in row(one, 1).inputs] == [[[2, 3]], [5]]


def test_only_floating_point_is_doubled() -> None:
    assert [x.dtype for x in doubled(batch()).inputs] == [torch.float64, torch.int64]
    assert doubled(batch()).target[0].dtype == torch.float32
    assert as_double(torch.ones(2)).dtype == torch.float64


def test_shapes_in_words() -> None:
    assert described(torch.zeros(2, 3)) == "(2, 3)"
    assert described((torch.zeros(2, 3), torch.zeros(4))) == "((2, 3), (4,))"
