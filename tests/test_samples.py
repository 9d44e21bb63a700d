from types import SimpleNamespace

import pytest
import torch

from ocd_core.errors import UserError
from ocd_core.samples import (
    Batch,
    as_tuple,
    concatenate,
    flat,
    groups_of,
    is_finite,
    map_tensors,
    only,
    paired,
    rows_at_once,
    rows_by_group,
    select,
    spread_rows,
    stack,
)

A, B = torch.arange(6.0).view(3, 2), torch.tensor([7, 8, 9])


@pytest.mark.parametrize(
    ("rows", "count", "found"),
    [(1, 5, [0]), (3, 5, [0, 1, 2]), (9, 5, [0, 2, 4, 6, 8]), (2**25 + 3, 2, [0, 2**25 + 2])],
)
def test_rows_are_spread_over_all(rows, count, found):
    assert spread_rows(rows, count).tolist() == found


def test_helpers_keep_the_structure_of_one_tensor():
    assert as_tuple(A) == (A,)
    assert only(A) is A
    assert torch.equal(only(map_tensors(lambda x: x + 1, A)), A + 1)
    assert select(A, torch.tensor([2, 0, 2])).tolist() == [[4, 5], [0, 1], [4, 5]]
    assert concatenate([A, A[:1]]).tolist() == [*A.tolist(), [0, 1]]
    assert stack([A, -A]).shape == (2, 3, 2)


def test_helpers_keep_the_structure_of_several_tensors():
    x, y = map_tensors(lambda t: t * 2, (A, B))
    assert torch.equal(x, A * 2)
    assert y.tolist() == [14, 16, 18]
    x, y = select((A, B), slice(1, 2))
    assert (x.tolist(), y.tolist()) == ([[2, 3]], [8])
    x, y = concatenate([(A, B), (A[:1], B[:1])])
    assert x.shape == (4, 2)
    assert y.tolist() == [7, 8, 9, 7]
    x, y = stack([(A, B), (A, B + 1)])
    assert x.shape == (2, 3, 2)
    assert y.tolist() == [[7, 8, 9], [8, 9, 10]]
    x, _ = concatenate([(x, y), (x, y)], axis=1)
    assert x.shape == (2, 6, 2)


def test_flat_puts_the_values_of_a_sample_side_by_side():
    assert flat(torch.ones(3)).shape == (3, 1)
    assert flat(torch.ones(3, 2, 2)).shape == (3, 4)
    assert flat((A, B.float())).tolist() == [[0, 1, 7], [2, 3, 8], [4, 5, 9]]


def test_outputs_and_targets_are_paired_sample_by_sample_and_never_broadcast():
    output, target = paired(torch.tensor([1.0, 2.0]), torch.tensor([[3.0], [5.0]]))
    assert (output - target).tolist() == [[-2], [-3]]
    assert [x.shape for x in paired(torch.ones(2, 3, 4), torch.ones(2, 12))] == [(2, 12), (2, 12)]
    for outputs, targets in (((3, 2), (3, 1)), ((3,), (3, 3)), ((3, 4, 1), (3, 4, 3)), ((1, 2), (3, 2))):
        with pytest.raises(UserError, match=r"output has shape \(.*\), but its target \(.*\); give"):
            paired(torch.ones(outputs), torch.ones(targets))


def test_is_finite_looks_at_every_tensor():
    assert is_finite((A, B))
    assert not is_finite((A, torch.tensor([1.0, torch.nan, 1.0])))


def test_a_batch_selects_inputs_targets_and_ids_together():
    batch = Batch((A, B), (B, A), torch.tensor([4, 5, 6])).select(torch.tensor([1, 1]))
    assert [x.tolist() for x in batch.inputs] == [[[2, 3], [2, 3]], [8, 8]]
    assert [x.tolist() for x in as_tuple(batch.target)] == [[8, 8], [[2, 3], [2, 3]]]
    assert batch.sample_id.tolist() == [5, 5]


class Grouped(SimpleNamespace):
    def __len__(self) -> int:
        return 3


def test_groups_are_an_attribute_of_the_split():
    assert groups_of(Grouped()) is None
    assert groups_of(Grouped(groups=None)) is None
    assert groups_of(Grouped(groups=B)) is B


@pytest.mark.parametrize("groups", [B[:2], B.float(), B[:, None], [7, 8, 9]])
def test_groups_of_another_form_are_refused(groups):
    with pytest.raises(UserError, match=r"int64 tensor of shape \(3,\)"):
        groups_of(Grouped(groups=groups))


def test_rows_by_group_are_ascending():
    rows = rows_by_group(torch.tensor([5, -1, 5, 2, -1]))
    assert [r.tolist() for r in rows] == [[1, 4], [3], [0, 2]]


def test_samples_that_differ_in_shape_are_taken_one_by_one():
    assert rows_at_once(Grouped(), 7) == 7
    assert rows_at_once(Grouped(one_by_one=False), 7) == 7
    assert rows_at_once(Grouped(one_by_one=True), 7) == 1
