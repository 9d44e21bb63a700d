"""The first samples of a split."""

import torch

from ocd_core.samples import groups_of
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


def test_a_shorter_split_stays_itself() -> None:
    whole = ArraySplit(torch.zeros(3, 1), torch.zeros(3))
    assert first_samples(whole, 3) is whole
