import copy
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from ocd_core.config import Params
from ocd_core.errors import UserError
from ocd_core.network.measuring import evaluate_model
from ocd_core.network.params import BaseParams
from ocd_core.network.training import BaseFit, BaseTraining, fit_base, load_base
from ocd_core.samples import Batch, Split, SplitName
from ocd_core.strict import StrictModel
from ocd_core.tasks.base import Metric, Task
from ocd_core.weights import save_weights
from tests.support.arrays import ArraySplit
from tests.support.params import base_params


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


def rows(n: int, seed: int, noise: float = 0.7) -> ArraySplit:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 3, generator=generator)
    return ArraySplit(x, torch.sin(2 * x[:, 0]) + x[:, 1] + noise * torch.randn(n, generator=generator))


def params(**changes: Any) -> BaseParams:
    return base_params(f"{__name__}:Net", {}, **({"epochs": 8, "patience": 3, "batch_size": 16, "lr": 0.01} | changes))


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
    chosen, notes = params(epochs=200, patience=4, lr=0.03), []
    result = fit_base(
        Regression(dropout=0.0), rows(24, 1), VAL, chosen, seed=0, progress=lambda _epoch, note: notes.append(note)
    )
    assert [note.startswith("stopped early, ") for note in notes] == [False] * (len(notes) - 1) + [True]
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
    empty = ArraySplit(torch.empty(0, 3), torch.empty(0))
    with pytest.raises(UserError, match="the train split is empty"):
        fit_base(Regression(), empty, VAL, params(), seed=0)
    with pytest.raises(UserError, match="the val split is empty"):
        fit_base(Regression(), TRAIN, empty, params(), seed=0)


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
        load_base(task, params(checkpoint=str(tmp_path / "nope.pt")), seed=0)


def test_digits_are_learned_and_training_stops_on_validation(mnist5k_params: Params, mnist5k_prepared: Path) -> None:
    """A few epochs, so that it takes seconds."""
    task = mnist5k_params.build_task()
    train, val, test = (task.open(mnist5k_prepared, s) for s in ("train", "val", "test"))
    result = fit_base(task, train, val, mnist5k_params.base.model_copy(update={"epochs": 5}), seed=0)
    assert [row["epoch"] for row in result.curve] == [1, 2, 3, 4, 5]
    assert result.curve[-1]["train_loss"] < result.curve[0]["train_loss"] / 2
    assert evaluate_model(task, result.model, test)["accuracy"] > 80


# --- optimisers and schedules, against plain loops of torch's own


OPTIMISERS = {
    "adam": (torch.optim.Adam, {"weight_decay": 0.1}),
    "adamw": (torch.optim.AdamW, {"weight_decay": 0.1}),
    "sgd": (torch.optim.SGD, {"weight_decay": 0.1, "momentum": 0.8}),
    "nesterov": (torch.optim.SGD, {"weight_decay": 0.1, "momentum": 0.8, "nesterov": True}),
}
SCHEDULES = {
    "constant": ({}, lambda u: 1.0),
    "cosine": ({"lr_schedule": "cosine"}, lambda u: 0.5 * (1 + math.cos(math.pi * u / 24))),
    "steps": ({"lr_schedule": "steps", "lr_steps": [2, 5], "lr_factor": 0.2}, lambda u: 0.2 ** ((u >= 8) + (u >= 20))),
    "warm-up": ({"lr_schedule": "cosine", "warmup": 1.5},
                lambda u: min(1, (u + 1) / 6) * 0.5 * (1 + math.cos(math.pi * u / 24))),
}  # fmt: skip


class Remembers(Linear):
    """Keeps the samples of every update, and the network of the last."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[Tensor] = []

    def training_batch(self, split: Split, sample_id: Tensor, seed: int, epoch: int) -> Batch:
        self.batches.append(sample_id)
        return split.batch(sample_id)


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("name", OPTIMISERS)
def test_optimisers_and_schedules_against_a_plain_loop(name: str, schedule: str) -> None:
    kind, args = OPTIMISERS[name]
    changes, factor = SCHEDULES[schedule]
    chosen = params(epochs=6, batch_size=15, lr=0.005, optimizer=name.replace("nesterov", "sgd"), **args, **changes)
    task = Remembers()
    result = fit_base(task, TRAIN, TRAIN, chosen, seed=3)
    assert result.metrics["best_epoch"] == 6  # its network is the last update's
    plain = Line()
    optimiser = kind(plain.parameters(), lr=0.005, **args)
    rates = torch.optim.lr_scheduler.LambdaLR(optimiser, factor)
    assert len(task.batches) == 24
    for sample_id in task.batches:
        loss = ((plain(TRAIN.x[sample_id]) - TRAIN.y[sample_id]) ** 2).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        rates.step()
    for key, value in weights(plain).items():
        torch.testing.assert_close(weights(result.model)[key], value, rtol=1e-5, atol=1e-7)


class Frozen(nn.Module):
    """A frozen body with running statistics and dropout, an unused parameter, and a head that trains."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(3, 8), nn.BatchNorm1d(8), nn.Dropout(0.5))
        self.body.requires_grad_(False)
        self.unused = nn.Linear(2, 2)
        self.head = nn.Linear(8, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.relu(self.body(x))).squeeze(1)


class OnFrozen(Regression):
    def build_model(self) -> nn.Module:
        return Frozen()


def test_what_is_frozen_stays_frozen_also_when_trained_further() -> None:
    first = fit_base(OnFrozen(), TRAIN, VAL, params(epochs=2, weight_decay=0.1), seed=4)
    cut = copy.deepcopy(first.model).requires_grad_(False)  # as the pipeline holds a network
    further = fit_base(OnFrozen(), TRAIN, VAL, params(epochs=3, lr=0.05), seed=5, start=cut)
    for name in weights(first.model):
        same = torch.equal(weights(first.model)[name], weights(further.model)[name])
        assert same == (not name.startswith("head")), name
    assert int(further.model.body[1].num_batches_tracked) == 0
    assert not any(p.requires_grad for p in cut.parameters())  # the network that it began with is not changed


def test_a_network_without_anything_to_train_is_refused() -> None:
    class AllFrozen(Regression):
        def build_model(self) -> nn.Module:
            return Line().requires_grad_(False)

    with pytest.raises(UserError, match="every parameter of the base network is frozen"):
        fit_base(AllFrozen(), TRAIN, VAL, params(), seed=0)


# --- a task's own fit


class LeastSquares(Linear):
    """Solved in closed form; trained further by gradient descent."""

    def fit(self, fit: BaseFit) -> BaseTraining:
        if fit.start is not None:
            return fit.by_gradient()
        model = fit.network()
        batch = fit.train.batch(torch.arange(len(fit.train)))
        x = torch.cat([batch.inputs[0], torch.ones(len(batch), 1)], 1)
        solution = torch.linalg.lstsq(x, batch.target[:, None]).solution[:, 0]
        with torch.no_grad():
            model.line.weight.copy_(solution[None, :3])
            model.line.bias.copy_(solution[3:])
        return fit.as_it_is(model)


def test_a_task_may_fit_its_base_in_its_own_way() -> None:
    result = fit_base(LeastSquares(), TRAIN, VAL, params(), seed=0)
    x = np.column_stack([TRAIN.x.numpy(), np.ones(60)]).astype(float)
    wanted = np.linalg.lstsq(x, TRAIN.y.numpy().astype(float), rcond=None)[0]
    np.testing.assert_allclose(result.model.line.weight.detach()[0], wanted[:3], rtol=1e-4)
    assert result.metrics["epochs"] == 0
    assert not result.model.training
    further = fit_base(LeastSquares(), TRAIN, TRAIN, params(epochs=1), seed=0, start=result.model)
    assert [row["epoch"] for row in further.curve] == [0, 1]
    assert further.metrics["best_epoch"] == 0  # nothing is better than the solution


class TwoPhases(Regression):
    def fit(self, fit: BaseFit) -> BaseTraining:
        model = fit.network()
        model.last.requires_grad_(False)
        first = fit.by_gradient(model)
        return fit.by_gradient(first.model.requires_grad_(True))


def test_phases_of_a_fit_repeat_bit_for_bit() -> None:
    one, two = (fit_base(TwoPhases(), TRAIN, VAL, params(epochs=2), seed=6) for _ in range(2))
    assert all(torch.equal(v, weights(two.model)[k]) for k, v in weights(one.model).items())
    usual = fit_base(Regression(), TRAIN, VAL, params(epochs=2), seed=6)
    assert not torch.equal(usual.model.first.weight, one.model.first.weight)


# --- checkpoints


class FreshHead(Regression):
    """A published body with a head of its own."""

    def load_checkpoint(self, model: nn.Module, path: Path) -> None:
        model.first.load_state_dict(load_file(path))


def test_what_a_checkpoint_leaves_out_is_a_function_of_the_seed(tmp_path: Path) -> None:
    body = nn.Linear(3, 16)
    save_file(body.state_dict(), tmp_path / "body.safetensors")
    given = params(checkpoint=str(tmp_path / "body.safetensors"))
    found = []
    for surrounding, seed in ((1, 0), (2, 0), (1, 1)):
        torch.manual_seed(surrounding)
        found.append(fit_base(FreshHead(), TRAIN, VAL, given, seed=seed).model)
    assert torch.equal(found[0].first.weight, body.weight)
    assert torch.equal(found[0].last.weight, found[1].last.weight)
    assert not torch.equal(found[0].last.weight, found[2].last.weight)


def test_each_seed_may_have_its_own_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for seed in (0, 1):
        save_weights(Net().requires_grad_(False), tmp_path / f"seed{seed}.safetensors")
    monkeypatch.setenv("HOME", str(tmp_path))
    given = params(checkpoint="~/seed{seed}.safetensors")
    for seed in (0, 1):
        found = weights(fit_base(Regression(), TRAIN, VAL, given, seed=seed).model)
        wanted = load_file(tmp_path / f"seed{seed}.safetensors")
        assert all(torch.equal(v, found[k]) for k, v in wanted.items())
    with pytest.raises(UserError, match=r"seed2\.safetensors does not exist"):
        fit_base(Regression(), TRAIN, VAL, given, seed=2)
