"""What the replicas of a sample share, against the base network run for each sample alone."""

import numpy as np
import pytest
import torch
from torch import Tensor

from ocd_core.errors import UserError
from ocd_core.overfit.base_values import CONDITION, TARGET, BaseValues, storable
from ocd_core.overfit.rows import RowBuilder
from ocd_core.samples import Batch
from tests.support.arrays import MODEL, Noisy, Rows
from tests.support.params import overfit_params as params


class Counted(Rows):
    """Remembers which samples were asked for as a whole."""

    def __init__(self, count: int) -> None:
        super().__init__(count)
        self.asked: list[int] = []

    def batch(self, sample_id: Tensor) -> Batch:
        self.asked += sample_id.tolist()
        return super().batch(sample_id)


def alone(split: Rows, sample: int) -> dict[str, Tensor]:
    """The plain network on one sample: what `MODEL` reads and gives."""
    x = split.x[sample : sample + 1]
    cut = MODEL.prefix((x,))
    activation, output = MODEL.forward(cut)
    parts = (cut.layer_input, activation.float(), output.float())
    return {**dict(zip(CONDITION, parts, strict=True)), TARGET: split.y[sample : sample + 1]}


@pytest.mark.parametrize(
    "calls", [[[0, 0, 1], [1, 1, 2]], [[3], [3], [3]], [[2, 1, 2, 0], [0, 5], [1]], [[4, 4], [0, 0], [4]]]
)
def test_each_row_has_the_values_of_its_own_sample(calls: list[list[int]]) -> None:
    split = Rows(6)
    values = BaseValues(Noisy(), MODEL, split)
    for rows in calls:
        found = values.of(torch.tensor(rows))
        assert set(found) == {*CONDITION, TARGET}
        for row, sample in enumerate(rows):
            for name, wanted in alone(split, sample).items():
                torch.testing.assert_close(found[name][row], wanted[0], rtol=1e-5, atol=1e-6, msg=name)


def test_the_base_runs_once_for_consecutive_rows_of_a_sample() -> None:
    split = Counted(6)
    values = BaseValues(Noisy(), MODEL, split)
    for rows in ([0, 0], [0, 1], [1], [1, 2, 3], [3, 4]):
        values.of(torch.tensor(rows))
    assert split.asked == [0, 1, 2, 3, 4]
    values.forget()
    values.of(torch.tensor([4]))
    assert split.asked[5:] == [4]


def test_a_shard_does_not_depend_on_what_was_computed_before() -> None:
    """Also if it begins in the middle of a sample's replicas; bit for bit."""
    split, p = Rows(8), params(replicas=3)
    used, fresh = (RowBuilder(Noisy(), MODEL, split, p, 0) for _ in range(2))
    schema = used.schema()
    for builder in (used, fresh):
        builder.batch_rows = 2
    used.fill(slice(0, 7), used.buffers(schema))
    found = used.fill(slice(7, 12), used.buffers(schema))
    wanted = fresh.fill(slice(7, 12), fresh.buffers(schema))
    for name, values in wanted.items():
        np.testing.assert_array_equal(found[name], values, err_msg=name)


def test_labels_of_every_real_dtype_can_be_stored() -> None:
    assert storable(torch.tensor([True, False])).tolist() == [1, 0]
    for dtype in (torch.bool, torch.bfloat16, torch.float16, torch.float32, torch.float64, torch.uint8, torch.int64):
        target = torch.tensor([0, 1]).to(dtype)
        found = storable(target)
        assert np.dtype(str(found.numpy().dtype)).kind in "fiu"
        assert torch.equal(found.to(dtype), target)
        assert (found.dtype == dtype) == (dtype not in (torch.bool, torch.bfloat16))
    with pytest.raises(UserError, match="the targets are complex numbers"):
        storable(torch.zeros(2, dtype=torch.complex64))
