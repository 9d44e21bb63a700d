"""The first samples of a split."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import pytest
import torch

from ocd_core.samples import Batch, groups_of
from ocd_core.scaffold.few import first_samples
from tests.support.arrays import ArraySplit


class Grouped(ArraySplit):
    """With three groups."""

    @property
    def groups(self) -> torch.Tensor:
        return torch.arange(len(self.x)) // 4


def test_it_ends_earlier_and_keeps_its_class_and_groups() -> None:
    whole = Grouped(torch.arange(12.0)[:, None], torch.zeros(12))
    few = first_samples(whole, 6)
    assert (len(few), len(whole)) == (6, 12)
    assert isinstance(few, Grouped)
    found = groups_of(few)
    assert found is not None
    assert found.tolist() == [0, 0, 0, 0, 1, 1]
    assert few.batch(torch.tensor([5, 0])).inputs[0].tolist() == [[5.0], [0.0]]


@dataclass(frozen=True, slots=True)
class Slotted:
    """A split whose objects have no `__dict__`."""

    x: torch.Tensor
    groups: torch.Tensor | None = None

    def __len__(self) -> int:
        return len(self.x)

    def batch(self, sample_id: torch.Tensor) -> Batch:
        return Batch((self.x[sample_id],), self.x[sample_id], sample_id)


class Triple(NamedTuple):
    x: torch.Tensor
    y: torch.Tensor
    rows: int

    def __len__(self) -> int:
        return self.rows

    def batch(self, sample_id: torch.Tensor) -> Batch:
        return Batch((self.x[sample_id],), self.y[sample_id], sample_id)


@pytest.mark.parametrize(
    "whole",
    [
        Slotted(torch.arange(12.0)),
        Slotted(torch.arange(12.0), torch.arange(12) // 4),
        Triple(torch.arange(12.0), torch.zeros(12), 12),
    ],
    ids=["slots", "slots with groups", "tuple"],
)
def test_splits_of_any_layout(whole: Any) -> None:
    few = first_samples(whole, 5)
    assert (len(few), len(whole)) == (5, 12)
    assert isinstance(few, type(whole))
    groups = groups_of(few)
    assert (groups is None) == (groups_of(whole) is None)
    assert groups is None or groups.tolist() == [0, 0, 0, 0, 1]
    assert few.batch(torch.tensor([4, 0])).inputs[0].tolist() == [4, 0]


def test_a_shorter_split_stays_itself() -> None:
    whole = ArraySplit(torch.zeros(3, 1), torch.zeros(3))
    assert first_samples(whole, 3) is whole
