import math

import pytest
import torch
from torch import Tensor, nn

from ocd_core.errors import UserError
from ocd_core.network.measuring import evaluate_model
from ocd_core.samples import Batch
from ocd_core.tasks.base import Metric
from tests.network.test_training import VAL, Net, Regression, rows
from tests.support.arrays import ArraySplit, ArrayTask, Ragged


class Grouped(ArraySplit):
    @property
    def groups(self) -> Tensor:
        return torch.arange(len(self)) % 3


class EveryKind(Regression):
    """Outputs and targets are pairs; a metric of each kind."""

    def build_model(self) -> nn.Module:
        return Pair()

    def loss(self, output: tuple[Tensor, Tensor], target: tuple[Tensor, Tensor]) -> Tensor:
        return (output[0] - target[0]) ** 2 + (output[1] - target[1]).abs().sum(1)

    @property
    def metrics(self) -> tuple[Metric, ...]:
        return (
            Metric("gain", lambda o, b: b.inputs[0][:, 0] - o[0], higher_is_better=True, sees="batch"),
            Metric("worst", per_group=lambda o, t: float((o[0] - t[0]).max()), higher_is_better=False, finish=math.exp),
            Metric("spread", over_split=lambda o, t: float(o[1].max() - t[1].min()), higher_is_better=False),
        )


class Pair(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        h = self.first(x)
        return h[:, 0], h


class Pairs(Grouped):
    def batch(self, sample_id: Tensor) -> Batch:
        y = self.y[sample_id]
        return Batch((self.x[sample_id],), (y, torch.stack([y, 2 * y], 1)), sample_id)


def test_evaluate_model_knows_every_kind_of_metric_and_pairs():
    split = rows(20, 1)
    pairs = Pairs(split.x, split.y)
    task = EveryKind()
    torch.manual_seed(0)
    model = task.build_model()
    found = evaluate_model(task, model, pairs, batch_size=6)
    with torch.no_grad():
        out = [model(x[None]) for x in split.x]
    one, both = [float(o[0]) for o in out], [o[1][0].tolist() for o in out]
    y = split.y.tolist()
    worst = [max(one[i] - y[i] for i in range(20) if i % 3 == g) for g in range(3)]
    losses = [(one[i] - y[i]) ** 2 + abs(both[i][0] - y[i]) + abs(both[i][1] - 2 * y[i]) for i in range(20)]
    assert list(found) == ["loss", "gain", "worst", "spread", "n"]
    assert found["loss"] == pytest.approx(sum(losses) / 20, rel=1e-5)
    assert found["gain"] == pytest.approx(sum(float(split.x[i, 0]) - one[i] for i in range(20)) / 20, rel=1e-4)
    assert found["worst"] == pytest.approx(math.exp(sum(worst) / 3), rel=1e-5)
    assert found["spread"] == pytest.approx(max(map(max, both)) - min(min(y), 2 * min(y)), rel=1e-5)


def test_a_metric_of_groups_is_refused_for_a_split_without_groups():
    class Ungrouped(EveryKind):
        @property
        def metrics(self) -> tuple[Metric, ...]:
            return super().metrics[1:]

    pairs = Pairs(*(getattr(rows(8, 1), name) for name in "xy"))

    class Plain(ArraySplit):
        batch = Pairs.batch

    with pytest.raises(UserError, match="metric 'worst' needs groups"):
        evaluate_model(Ungrouped(), Pair(), Plain(pairs.x, pairs.y))


def test_evaluation_against_a_plain_float64_loop() -> None:
    torch.manual_seed(0)
    model = Net().train()
    found = evaluate_model(Regression(), model, VAL, batch_size=7)
    assert model.training  # the mode is restored
    model.eval().double()
    with torch.no_grad():
        errors = [(float(model(VAL.x[i : i + 1].double())) - float(VAL.y[i])) ** 2 for i in range(len(VAL))]
    mean = sum(errors) / len(errors)
    assert found["loss"] == pytest.approx(mean, rel=1e-5)
    assert found["rmse"] == pytest.approx(math.sqrt(mean), rel=1e-5)
    assert found["n"] == 40


def test_an_empty_split() -> None:
    with pytest.raises(UserError, match="empty split"):
        evaluate_model(Regression(), Net(), ArraySplit(torch.empty(0, 3), torch.empty(0)))


class Mean(nn.Module):
    """(N, T, D) -> the mean over T."""

    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        return self.factor * x.mean(1)


def test_samples_that_differ_in_shape_are_measured_whole():
    samples = [torch.randn(length, 2, generator=torch.Generator().manual_seed(length)) for length in (5, 3, 9)]
    expected = sum(float((x.mean(0) - 1).square().mean()) for x in samples) / 3
    assert evaluate_model(ArrayTask(), Mean(), Ragged(*samples))["loss"] == pytest.approx(expected)
