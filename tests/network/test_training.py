import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ocd_core.config import Params
from ocd_core.errors import UserError
from ocd_core.network.params import BaseParams, ModelParams
from ocd_core.network.training import evaluate_model, fit_base, load_base
from ocd_core.samples import Batch, Split, SplitName
from ocd_core.strict import StrictModel
from ocd_core.tasks.base import Metric, Task
from ocd_core.weights import save_weights


class Net(nn.Module):
    """With batch normalisation and dropout, which behave differently in training."""

    def __init__(self, dropout: float = 0.2) -> None:
        super().__init__()
        self.first = nn.Linear(3, 16)
        self.norm = nn.BatchNorm1d(16)
        self.dropout = nn.Dropout(dropout)
        self.last = nn.Linear(16, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.dropout(torch.relu(self.norm(self.first(x))))).squeeze(1)


@dataclass(frozen=True)
class Rows:
    x: Tensor
    y: Tensor

    def __len__(self) -> int:
        return len(self.y)

    def batch(self, sample_id: Tensor) -> Batch:
        return Batch((self.x[sample_id],), self.y[sample_id], sample_id)


class Regression(Task):
    """A small regression with noise: it overfits, so that early stopping has something to do."""

    def __init__(self, dropout: float = 0.2) -> None:
        super().__init__(StrictModel(), f"{__name__}:Net", {"dropout": dropout})
        self.epochs_seen: list[int] = []

    def prepare(self, dest: Path) -> dict[str, Any]:
        raise NotImplementedError

    def open(self, prepared: Path, split: SplitName) -> Split:
        raise NotImplementedError

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        return (output - target) ** 2

    @property
    def metrics(self) -> tuple[Metric, ...]:
        return (Metric("rmse", self.loss, higher_is_better=False, finish=math.sqrt),)

    def training_batch(self, split: Split, sample_id: Tensor, seed: int, epoch: int) -> Batch:
        self.epochs_seen.append(epoch)
        return split.batch(sample_id)


def rows(n: int, seed: int, noise: float = 0.7) -> Rows:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 3, generator=generator)
    return Rows(x, torch.sin(2 * x[:, 0]) + x[:, 1] + noise * torch.randn(n, generator=generator))


def params(**changes: Any) -> BaseParams:
    values: dict[str, Any] = {
        "model": ModelParams(name=f"{__name__}:Net", args={}), "checkpoint": None, "epochs": 8, "patience": 3,
        "batch_size": 16, "lr": 0.01, "weight_decay": 0.0,
    }  # fmt: skip
    return BaseParams(**(values | changes))


TRAIN, VAL = rows(60, 1), rows(40, 2)


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {k: v.clone() for k, v in model.state_dict().items()}


def test_two_runs_are_equal_bit_for_bit_and_another_seed_is_not() -> None:
    torch.manual_seed(1)
    first = fit_base(Regression(), TRAIN, VAL, params(), seed=0)
    torch.manual_seed(2)  # the surrounding program's randomness does not matter
    second = fit_base(Regression(), TRAIN, VAL, params(), seed=0)
    other = fit_base(Regression(), TRAIN, VAL, params(), seed=1)
    assert first.curve == second.curve
    assert first.metrics == second.metrics
    assert all(torch.equal(v, weights(second.model)[k]) for k, v in weights(first.model).items())
    assert first.curve != other.curve


def test_the_surrounding_random_state_is_left_alone() -> None:
    torch.manual_seed(3)
    wanted = torch.rand(2)
    torch.manual_seed(3)
    fit_base(Regression(), TRAIN, VAL, params(epochs=1), seed=0)
    assert torch.equal(torch.rand(2), wanted)


def test_it_stops_on_validation_and_keeps_the_best_epoch() -> None:
    result = fit_base(Regression(dropout=0.0), rows(24, 1), VAL, params(epochs=200, patience=4, lr=0.03), seed=0)
    losses = [row["val_loss"] for row in result.curve]
    best = losses.index(min(losses))
    assert len(losses) < 200
    assert len(losses) == best + 1 + 4
    assert result.metrics["epochs"] == len(losses)
    assert result.metrics["best_epoch"] == best + 1 == result.curve[best]["epoch"]
    assert result.metrics["val_loss"] == losses[best]
    # the model is that epoch's, and evaluates as the curve says
    assert evaluate_model(Regression(), result.model, VAL)["loss"] == losses[best]
    assert not result.model.training
    assert losses[best] < float(VAL.y.var())  # it had learned: better than predicting the mean
    assert result.curve[-1]["train_loss"] < result.curve[0]["train_loss"]


class Line(nn.Module):
    """A network whose gradients and Adam steps can be written by hand."""

    def __init__(self) -> None:
        super().__init__()
        self.line = nn.Linear(3, 1)
        nn.init.constant_(self.line.weight, 0.5)
        nn.init.zeros_(self.line.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.line(x).squeeze(1)


class Linear(Regression):
    def build_model(self) -> nn.Module:
        return Line()


def test_an_epoch_of_one_batch_by_hand() -> None:
    """Adam's first step is lr * g / (|g| + eps), with g the gradient of the mean loss plus weight decay."""
    lr, decay = 0.02, 0.1
    result = fit_base(Linear(), TRAIN, VAL, params(epochs=1, batch_size=60, lr=lr, weight_decay=decay), seed=7)
    x, y, w = TRAIN.x.double(), TRAIN.y.double(), torch.full((3,), 0.5, dtype=torch.float64)
    error = x @ w - y
    gradient = 2 * (error[:, None] * x).mean(0) + decay * w
    bias_gradient = 2 * error.mean()
    assert result.curve[0]["train_loss"] == pytest.approx(float((error**2).mean()), rel=1e-6)
    found = weights(result.model)
    torch.testing.assert_close(found["line.weight"][0].double(), w - lr * gradient.sign(), rtol=0, atol=1e-6)
    torch.testing.assert_close(found["line.bias"][0].double(), -lr * bias_gradient.sign(), rtol=0, atol=1e-6)


def test_every_sample_is_seen_once_an_epoch_and_no_batch_is_tiny() -> None:
    seen: list[list[Tensor]] = []

    class Spy(Regression):
        def training_batch(self, split: Split, sample_id: Tensor, seed: int, epoch: int) -> Batch:
            if epoch > len(seen):
                seen.append([])
            seen[-1].append(sample_id)
            return split.batch(sample_id)

    fit_base(Spy(), rows(33, 1), VAL, params(epochs=2, batch_size=16), seed=0)
    assert len(seen) == 2
    for batches in seen:
        assert sorted(torch.cat(batches).tolist()) == list(range(33))
        assert [len(b) for b in batches] == [11, 11, 11]  # not 16, 16, 1: batch normalisation needs more than one
    assert not torch.equal(torch.cat(seen[0]), torch.cat(seen[1]))


def test_progress_counts_epochs() -> None:
    notes: list[tuple[int, str]] = []
    fit_base(Regression(), TRAIN, VAL, params(epochs=2), seed=0, progress=lambda n, note="": notes.append((n, note)))
    assert [n for n, _ in notes] == [1, 2]
    assert "val loss" in notes[0][1]


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


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite(value: float) -> None:
    bad = rows(60, 1)
    bad.y[13] = value
    with pytest.raises(UserError, match=r"training loss .* became (nan|inf) in epoch 1: lower base.lr \(now 0.01\)"):
        fit_base(Regression(), bad, VAL, params(), seed=0)
    with pytest.raises(UserError, match=r"validation loss .* became (nan|inf) in epoch 1"):
        fit_base(Regression(), TRAIN, bad, params(), seed=0)


def test_divergence_names_the_epoch() -> None:
    class Explodes(Regression):
        def loss(self, output: Tensor, target: Tensor) -> Tensor:
            loss = (output - target) ** 2
            return loss * float("nan") if self.epochs_seen and self.epochs_seen[-1] == 3 else loss

    with pytest.raises(UserError, match="in epoch 3"):
        fit_base(Explodes(), TRAIN, VAL, params(), seed=0)


def test_empty_splits() -> None:
    empty = Rows(torch.empty(0, 3), torch.empty(0))
    with pytest.raises(UserError, match="the train split is empty"):
        fit_base(Regression(), empty, VAL, params(), seed=0)
    with pytest.raises(UserError, match="the val split is empty"):
        fit_base(Regression(), TRAIN, empty, params(), seed=0)
    with pytest.raises(UserError, match="empty split"):
        evaluate_model(Regression(), Net(), empty)


def test_a_given_checkpoint_is_evaluated_and_not_trained(tmp_path: Path) -> None:
    trained = fit_base(Regression(), TRAIN, VAL, params(), seed=0).model
    save_weights(trained, tmp_path / "base.safetensors")
    given = params(checkpoint=str(tmp_path / "base.safetensors"))
    task = Regression()
    result = fit_base(task, TRAIN, VAL, given, seed=5)
    assert task.epochs_seen == []
    assert all(torch.equal(v, weights(trained)[k]) for k, v in weights(result.model).items())
    assert not result.model.training
    (row,) = result.curve
    on_train, on_val = (evaluate_model(task, trained, s) for s in (TRAIN, VAL))
    assert row == {"epoch": 0, "train_loss": on_train["loss"], "val_loss": on_val["loss"], "val_rmse": on_val["rmse"]}
    assert result.metrics["val_loss"] == on_val["loss"]
    with pytest.raises(UserError, match=r"nope\.pt does not exist"):
        load_base(task, params(checkpoint=str(tmp_path / "nope.pt")))


def test_digits_are_learned_and_training_stops_on_validation(mnist5k_params: Params, mnist5k_prepared: Path) -> None:
    """A third of mnist5k's training set and a few epochs, so that it takes seconds."""
    task = mnist5k_params.build_task()
    train, val, test = (task.open(mnist5k_prepared, s) for s in ("train", "val", "test"))

    class Third:
        def __len__(self) -> int:
            return len(train) // 3

        def batch(self, sample_id: Tensor) -> Batch:
            return train.batch(sample_id)

    result = fit_base(task, Third(), val, mnist5k_params.base.model_copy(update={"epochs": 4}), seed=0)
    assert [row["epoch"] for row in result.curve] == [1, 2, 3, 4]
    assert result.curve[-1]["train_loss"] < result.curve[0]["train_loss"] / 2
    assert evaluate_model(task, result.model, test)["accuracy"] > 80


class Grouped(Rows):
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

    class Plain(Rows):
        batch = Pairs.batch

    with pytest.raises(UserError, match="metric 'worst' is of groups"):
        evaluate_model(Ungrouped(), Pair(), Plain(pairs.x, pairs.y))
