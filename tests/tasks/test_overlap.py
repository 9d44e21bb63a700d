import torch
from hypothesis import given
from hypothesis import strategies as st

from ocd_core.samples import Batch, SplitName
from ocd_core.tasks.overlap import row_hashes, shared_inputs, shared_rows, warnings
from tests.support.arrays import Ragged

CONTENT = st.lists(st.integers(0, 6), max_size=12)


@given(train=CONTENT, val=CONTENT, test=CONTENT)
def test_counts_against_comparing_all_pairs(train: list[int], val: list[int], test: list[int]) -> None:
    splits: dict[SplitName, list[int]] = {"train": train, "val": val, "test": test}
    found = shared_rows({name: row_hashes(torch.tensor(rows)) for name, rows in splits.items()})
    assert found == {
        "train/val": sum(any(x == y for y in train) for x in val),
        "train/test": sum(any(x == y for y in train) for x in test),
        "val/test": sum(any(x == y for y in val) for x in test),
    }


def test_one_equal_key_is_enough() -> None:
    found = shared_rows(
        {"train": [(b"photograph 1", b"pose 1")], "test": [(b"x", b"pose 1"), (b"photograph 1", b"y"), (b"x", b"y")]}
    )
    assert found == {"train/test": 2}


def test_hashes_see_every_number_of_every_column() -> None:
    x, y = torch.zeros(2, 3, 4), torch.zeros(2, dtype=torch.int64)
    (first, second) = row_hashes(x, y)
    assert first == second
    x[1, 2, 3] = 1e-30
    (first, second) = row_hashes(x, y)
    assert first != second
    (first, second) = row_hashes(torch.zeros(2, 3), torch.tensor([0, 1]))
    assert first != second
    (first, second) = row_hashes(torch.tensor([[0.0, 1.0], [-0.0, 1.0]]))
    assert first == second


class Rows:
    """A split of one float per sample."""

    def __init__(self, *values: float) -> None:
        self.values = torch.tensor(values)

    def __len__(self) -> int:
        return len(self.values)

    def batch(self, sample_id: torch.Tensor) -> Batch:
        return Batch((self.values[sample_id],), torch.zeros(len(sample_id)), sample_id)


def test_any_domain_is_counted_by_its_inputs() -> None:
    splits: dict[SplitName, Rows] = {"train": Rows(1.0, 2.0, 3.0), "val": Rows(4.0), "test": Rows(3.0, 3.0, 4.0, 5.0)}
    for size in (1, 3, 100):
        found = shared_inputs(splits, size)
        assert found == {"train/val": 0, "train/test": 2, "val/test": 1}
    assert warnings({"shared_rows": found}) == [
        "2 samples of test have the same content as samples of train",
        "1 samples of test have the same content as samples of val",
    ]
    assert warnings({}) == []


def test_samples_that_differ_only_in_their_ends_are_not_equal() -> None:
    x = torch.arange(12.0).view(6, 2)
    splits: dict[SplitName, Ragged] = {"train": Ragged(x, x[:3]), "test": Ragged(x[:5], x[:3])}
    assert shared_inputs(splits, 100) == {"train/test": 1}
