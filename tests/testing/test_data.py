"""`check_task` names what is broken in a task's data, and in the batches that it gives."""

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from ocd_core.samples import Batch, Split, SplitName
from ocd_core.tasks.draws_inputs import DrawsInputs
from ocd_core.testing.data import check_split
from tests.support.arrays import ArraySplit
from tests.testing.broken import Cases
from tests.testing.good import Drawing, Good

CASES = Cases()
broken = CASES.broken


class ChangedSplit(Good):
    """A task whose batches are changed by `change`."""

    def change(self, batch: Batch) -> Batch:
        raise NotImplementedError

    def open(self, prepared: Path, split: SplitName) -> Split:
        rows, change = super().open(prepared, split), self.change

        class Changed:
            def __len__(self) -> int:
                return len(rows)

            def batch(self, sample_id: Tensor) -> Batch:
                return change(rows.batch(sample_id))

        return Changed()


@broken("prepare wrote no file")
class WritesNothing(Good):
    def prepare(self, dest: Path) -> dict[str, Any]:
        return {}


@broken(r"same bytes every time, but time\.txt differ")
class WritesTheTime(Good):
    def prepare(self, dest: Path) -> dict[str, Any]:
        (dest / "time.txt").write_text(str(time.perf_counter_ns()))
        return super().prepare(dest)


@broken("plain values that JSON can hold")
class SummaryOfTensors(Good):
    def prepare(self, dest: Path) -> dict[str, Any]:
        super().prepare(dest)
        return {"x": torch.ones(2)}


@broken("must return a dict")
class NoSummary(Good):
    def prepare(self, dest: Path) -> dict[str, Any]:
        super().prepare(dest)
        return None  # type: ignore[return-value]


@broken("must return a Split")
class OpensAList(Good):
    def open(self, prepared: Path, split: SplitName) -> Split:
        return [1, 2, 3]  # type: ignore[return-value]


@broken("the val split is empty")
class EmptyVal(Good):
    def open(self, prepared: Path, split: SplitName) -> Split:
        rows = super().open(prepared, split)
        return ArraySplit(torch.empty(0, 3), torch.empty(0, 2)) if split == "val" else rows


@broken("in the requested order")
class SortsRows(ChangedSplit):
    def change(self, batch: Batch) -> Batch:
        order = batch.sample_id.argsort()
        return replace(batch, inputs=(batch.inputs[0][order],))


@broken("each the same at every call")
class RandomRows(ChangedSplit):
    def change(self, batch: Batch) -> Batch:
        return replace(batch, inputs=(batch.inputs[0] + torch.rand(3),))


@broken("whatever its neighbours")
class NormalisesBatch(ChangedSplit):
    def change(self, batch: Batch) -> Batch:
        return replace(batch, inputs=(batch.inputs[0] - batch.inputs[0].mean(0),))


@broken("sample_id must be the requested rows")
class WrongIds(ChangedSplit):
    def change(self, batch: Batch) -> Batch:
        return replace(batch, sample_id=torch.arange(len(batch)))


@broken("inputs must be a tuple of tensors")
class InputsAreATensor(ChangedSplit):
    def change(self, batch: Batch) -> Batch:
        return replace(batch, inputs=batch.inputs[0])


@broken(r"target of shape \(1, 2\) for 5 samples")
class OneTarget(ChangedSplit):
    def change(self, batch: Batch) -> Batch:
        return replace(batch, target=batch.target[:1])


@broken("inputs has NaN")
class NanInputs(ChangedSplit):
    def change(self, batch: Batch) -> Batch:
        return replace(batch, inputs=(batch.inputs[0] / 0 * 0,))


@broken("training_batch must be a function of its arguments")
class RandomAugmentation(Good):
    def training_batch(self, split: Split, sample_id: Tensor, seed: int, epoch: int) -> Batch:
        batch = split.batch(sample_id)
        return replace(batch, inputs=(batch.inputs[0] + torch.rand(3),))


@broken("overfit_batch must be a function of its arguments")
class RandomSteps(DrawsInputs, Good):
    def overfit_batch(self, split: Split, sample_id: Tensor, replica: Tensor, step: int, seed: int) -> Batch:
        batch = split.batch(sample_id)
        return replace(batch, inputs=(batch.inputs[0] + torch.rand(3),))


@broken("whatever its neighbours: draw by sample id")
class DrawsOnceABatch(DrawsInputs, Good):
    def overfit_batch(self, split: Split, sample_id: Tensor, replica: Tensor, step: int, seed: int) -> Batch:
        batch = split.batch(sample_id)
        noise = torch.randn(len(batch), 3, generator=torch.Generator().manual_seed(seed + step))
        return replace(batch, inputs=(batch.inputs[0] + noise,))


@broken("the shares of parts must add up to 1, not 2")
class WholeSharesTwice(Drawing):
    def parts(self, batch: Batch) -> list[tuple[Batch, float]]:
        return [(batch, 1.0), (batch, 1.0)]


@broken("seen_while_overfitting must be bool")
class SeesNumbers(Drawing):
    def seen_while_overfitting(self, split: Split, sample_id: Tensor, steps: int, seed: int) -> Tensor:
        return torch.ones(len(sample_id), 2)


@broken(r"the train split: groups of a split must be an int64 tensor of shape \(6,\)")
class TooFewGroups(Good):
    def open(self, prepared: Path, split: SplitName) -> Split:
        rows = super().open(prepared, split)
        object.__setattr__(rows, "groups", torch.zeros(2, dtype=torch.int64))
        return rows


@pytest.mark.parametrize("name", CASES)
def test_a_broken_task_is_refused(name: str, tmp_path: Path) -> None:
    CASES.refused(name, tmp_path)


class Ragged:
    """Samples of different lengths; a batch is as long as its shortest."""

    def __init__(self, one_by_one: bool) -> None:
        self.one_by_one = one_by_one

    def __len__(self) -> int:
        return 4

    def batch(self, sample_id: Tensor) -> Batch:
        length = int(sample_id.min()) + 3
        x = sample_id[:, None] + torch.linspace(0, 1, 8)[:length]
        return Batch((x,), x, sample_id)


def test_samples_that_differ_in_shape_need_be_whole_only_alone() -> None:
    check_split(Ragged(one_by_one=True), "train")
    with pytest.raises(AssertionError, match="whatever its neighbours"):
        check_split(Ragged(one_by_one=False), "train")
