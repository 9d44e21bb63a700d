"""`check_task` passes tasks that keep the protocol, of every kind that it allows."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ocd_core.config import Params
from ocd_core.network.training import BaseFit, BaseTraining
from ocd_core.samples import Batch, Split, SplitName
from ocd_core.tasks.base import Metric, Task
from ocd_core.testing import check_task
from tests.support.arrays import ArraySplit
from tests.testing.good import Drawing, Good, Net


class FrozenBody(nn.Module):
    """A frozen body, a parameter without a use, and a head that trains."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8)).requires_grad_(False)
        self.unused = nn.Parameter(torch.ones(2))
        self.last = nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(torch.relu(self.body(x)))


class Frozen(Good):
    def build_model(self) -> nn.Module:
        return FrozenBody()


class OneNumber(Good):
    """Outputs and targets of shape (N,)."""

    def open(self, prepared: Path, split: SplitName) -> Split:
        rows = super().open(prepared, split)
        return ArraySplit(rows.x, rows.y[:, 0])

    def build_model(self) -> nn.Module:
        return nn.Sequential(nn.Linear(3, 8), nn.Tanh(), nn.Linear(8, 1), nn.Flatten(0))

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        return (output - target).square()


class PairRows(ArraySplit):
    def batch(self, sample_id: Tensor) -> Batch:
        y = self.y[sample_id]
        return Batch((self.x[sample_id],), (y, y[:, 0]), sample_id)


class PairNet(Net):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = super().forward(x)
        return h, h.sum(1)


class Pairs(Good):
    """Outputs and targets are pairs of tensors."""

    def open(self, prepared: Path, split: SplitName) -> Split:
        rows = super().open(prepared, split)
        return PairRows(rows.x, rows.y)

    def build_model(self) -> nn.Module:
        return PairNet()

    def loss(self, output: tuple[Tensor, Tensor], target: tuple[Tensor, Tensor]) -> Tensor:
        return (output[0] - target[0]).square().sum(1) + (output[1] - target[1]).abs()


class GroupedRows(ArraySplit):
    @property
    def groups(self) -> Tensor:
        return torch.arange(len(self)) // 2


class Grouped(Good):
    """Metrics of every kind, for samples in groups."""

    def open(self, prepared: Path, split: SplitName) -> Split:
        rows = super().open(prepared, split)
        return GroupedRows(rows.x, rows.y)

    @property
    def metrics(self) -> Sequence[Metric]:
        return (
            Metric("gain", lambda o, b: b.inputs[0][:, 0] - o[:, 0], higher_is_better=True, sees="batch"),
            Metric("worst", per_group=lambda o, t: float((o - t).abs().max()), higher_is_better=False, finish=np.sqrt),
            Metric("highest", over_split=lambda o, t: float((o - t).max()), higher_is_better=False),
        )


class Classes(Good):
    def predicted_class(self, output: Tensor) -> Tensor:
        return output.argmax(1)

    def log_probabilities(self, output: Tensor) -> Tensor:
        return output.log_softmax(1)

    def training_loss(self, output: Tensor, target: Tensor, label_smoothing: float) -> Tensor:
        return self.loss(output, target * (1 - label_smoothing))


class Fitted(Good):
    """A base that is not trained by gradients: its last layer is solved for."""

    def fit(self, fit: BaseFit) -> BaseTraining:
        model = fit.network()
        batch = fit.train.batch(torch.arange(len(fit.train)))
        with torch.no_grad():
            h = torch.relu(model.first(*batch.inputs))
            gram = h.T @ h + 0.1 * torch.eye(8)
            model.last.weight.copy_(torch.linalg.solve(gram, h.T @ batch.target).T)
        return fit.as_it_is(model)


class Bound(Good):
    """A network whose size is read from the prepared data."""

    width = 0

    def bind(self, prepared: Path) -> None:
        self.width = len(super().open(prepared, "train"))

    def build_model(self) -> nn.Module:
        return nn.Sequential(nn.Linear(3, self.width), nn.Tanh(), nn.Linear(self.width, 2))


@pytest.mark.parametrize(
    "task", [Good, Drawing, Frozen, OneNumber, Pairs, Grouped, Classes, Fitted, Bound], ids=lambda task: task.__name__
)
def test_a_good_task_passes(task: type[Task], tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text("[0.5, 1.0, 2.0]")
    check_task(task(), tmp_path / "a", example=tmp_path / "x.json")


def test_layers_may_be_named_also_several_that_move_as_one(tmp_path: Path) -> None:
    class TwoHeads(Net):
        def __init__(self) -> None:
            super().__init__()
            self.other = nn.Linear(8, 2)

        def forward(self, x: Tensor) -> Tensor:
            h = torch.relu(self.first(x))
            return self.last(h) + self.other(-h)

    class Distilled(Good):
        def build_model(self) -> nn.Module:
            return TwoHeads()

    check_task(Distilled(), tmp_path, layers=["first", "last+other"])


def test_the_digits_pass(mnist5k_params: Params, mnist5k_prepared: Path, tmp_path: Path) -> None:
    class Prepared(type(mnist5k_params.build_task())):
        """The real task, whose data is copied from where it was prepared already, to save seconds."""

        def prepare(self, dest: Path) -> dict[str, Any]:
            for file in mnist5k_prepared.iterdir():
                (dest / file.name).write_bytes(file.read_bytes())
            return {}

    np.save(tmp_path / "digit.npy", np.zeros((28, 28), np.uint8))
    base = mnist5k_params.base.model
    check_task(Prepared(mnist5k_params.data, base.name, base.args), tmp_path / "t", example=tmp_path / "digit.npy")


def test_the_group_of_params_must_be_a_strict_model(tmp_path: Path) -> None:
    class WrongData(Good):
        Data = dict

    with pytest.raises(AssertionError, match=r"set WrongData.Data to a StrictModel and build the task from an"):
        check_task(WrongData(), tmp_path)
