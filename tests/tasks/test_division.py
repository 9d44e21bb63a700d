"""Splits from parts: stratified by class, by whole groups, sizes that are not possible."""

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ocd_core.errors import UserError
from ocd_core.tasks.division import divide, grouped_order, stratified_order

ALL: dict[Any, int | None] = {"train": None, "val": None, "test": None}


@settings(max_examples=50)
@given(
    labels=hnp.arrays(np.int64, st.integers(1, 120), elements=st.integers(0, 4)),
    seed=st.integers(0, 2**31),
    cut=st.floats(0, 1),
)
def test_every_first_part_of_a_stratified_order_is_stratified(
    labels: np.ndarray[Any, np.dtype[np.int64]], seed: int, cut: float
) -> None:
    order = stratified_order(torch.from_numpy(labels), seed, "test").numpy()
    assert sorted(order) == list(range(len(labels)))
    first = labels[order[: int(cut * len(labels))]]
    for c in np.unique(labels):
        share = len(first) * (labels == c).mean()
        # one sample by the class's own rounding, and less than one by that of the other classes together
        assert abs((first == c).sum() - share) < 2


def test_the_order_depends_on_the_seed_alone() -> None:
    labels = torch.arange(60) % 3
    assert torch.equal(stratified_order(labels, 5, "a"), stratified_order(labels, 5, "a"))
    assert not torch.equal(stratified_order(labels, 5, "a"), stratified_order(labels, 6, "a"))
    assert not torch.equal(stratified_order(labels, 5, "a"), stratified_order(labels, 5, "b"))


@settings(max_examples=50)
@given(
    groups=hnp.arrays(np.int64, st.integers(8, 60), elements=st.integers(0, 9)),
    seed=st.integers(0, 2**31),
    data=st.data(),
)
def test_groups_are_not_divided(groups: np.ndarray[Any, np.dtype[np.int64]], seed: int, data: st.DataObject) -> None:
    test = data.draw(st.integers(1, len(groups) // 4))
    order = grouped_order(torch.from_numpy(groups), seed, "test")
    assert sorted(order.tolist()) == list(range(len(groups)))
    try:
        splits = divide({"train": order}, {**ALL, "val": 1, "test": test}, {"train": torch.from_numpy(groups)})
    except UserError:
        assume(False)  # a large group may take everything
    rows = {name: rows.tolist() for name, (_, rows) in splits.items()}
    assert sorted(i for chosen in rows.values() for i in chosen) == list(range(len(groups)))
    of = {name: {int(groups[i]) for i in chosen} for name, chosen in rows.items()}
    assert sum(map(len, of.values())) == len(set(groups.tolist()))  # no group is in two
    assert len(rows["test"]) >= test
    # no more than needed: without its last group there would be too few
    last = groups[rows["test"][-1]]
    assert sum(groups[i] != last for i in rows["test"]) < test
    for chosen in rows.values():  # the rows of a group stay together and in their order
        places = [i for i in chosen if groups[i] == groups[chosen[0]]]
        assert places == sorted(places) == chosen[: len(places)]


def test_a_part_that_is_used_whole_keeps_its_order() -> None:
    orders = {"train": torch.tensor([2, 0, 3, 1, 4]), "test": torch.tensor([1, 0])}
    splits = divide(orders, {**ALL, "val": 2})
    assert splits["test"][0] == "test"
    assert splits["test"][1].tolist() == [0, 1]
    assert splits["val"][1].tolist() == [2, 0]
    assert splits["train"][1].tolist() == [3, 1, 4]
    assert list(splits) == ["train", "val", "test"]


def test_a_tenth_of_train_is_val_by_default() -> None:
    splits = divide({"train": torch.arange(40)}, {**ALL, "test": 10})
    assert [len(rows) for _, rows in splits.values()] == [27, 3, 10]


@pytest.mark.parametrize(("sizes", "split", "left"), [({"test": 6}, "test", 5), ({"test": 3, "val": 3}, "val", 2)])
def test_more_than_there_is(sizes: dict[Any, int], split: str, left: int) -> None:
    with pytest.raises(UserError, match=rf"data\.{split}_size: .* but {left} of the 5 in the source's train part"):
        divide({"train": torch.arange(5)}, {**ALL, **sizes})
