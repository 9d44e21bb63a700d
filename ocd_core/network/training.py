"""The base network f_θ: trained as its task says, with early stopping on validation, or loaded from given weights.

Runs repeat bit for bit on one machine (with the same number of threads): the order of samples, fresh weights and
dropout depend only on the seed and the epoch.

Parameters that are frozen when the task builds its network (`requires_grad` is False) stay frozen. A module with only
frozen parameters also stays in eval mode, so that training does not change its running statistics.
"""

import copy
import math
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from ocd_core.errors import DivergedError, UserError
from ocd_core.files import path_of
from ocd_core.network.measuring import evaluate_model
from ocd_core.network.params import BaseParams
from ocd_core.progress import Progress, no_progress
from ocd_core.rng import derive_seed, permutation
from ocd_core.samples import Split
from ocd_core.tasks.base import Task
from ocd_core.training.rates import learning_rate


@runtime_checkable
class Pretrained(Protocol):
    """A network whose training starts from published weights; only training reads them, later stages need no source."""

    def load_pretrained(self) -> list[str]:
        """Read them, and return sentences about what was replaced."""


@dataclass(frozen=True)
class BaseTraining:
    """A trained base network.

    model: the network of the best epoch, in eval mode.
    curve: one row per epoch, from 1: epoch, train_loss (mean over the epoch's batches, with dropout, augmentation and
        label smoothing), val_loss and val_<metric>. A loaded network has one row, epoch 0.
    metrics: epochs, best_epoch, val_loss and val_<metric> of the best epoch.
    notes: sentences about its start that must accompany every result (a published head that was replaced).
    """

    model: nn.Module
    curve: list[dict[str, float]]
    metrics: dict[str, float]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class BaseFit:
    """One training of the base network: what `Task.fit` receives.

    params: the group `base`. seed: the run's seed. device: where to train and evaluate. progress: to be called with
    the number of epochs done. start: a network to train further, or None for one with fresh weights. notes: what
    `network` found to say about published weights. lr_name: of the learning rate in the params, for errors.
    """

    task: Task
    train: Split
    val: Split
    params: BaseParams
    seed: int
    device: torch.device
    progress: Progress = no_progress
    start: nn.Module | None = None
    notes: list[str] = field(default_factory=list)
    lr_name: str = "base.lr"

    def network(self) -> nn.Module:
        """The network that training starts from, on the CPU: the task's with fresh weights (from the seed), or `start`.

        A fresh network with a method `load_pretrained` reads published weights first; what that returns are `notes`.

        Raises:
            UserError: the published weights cannot be read or do not fit.
        """
        if self.start is None:
            model, notes = starting_network(self.task, self.seed)
            self.notes.extend(notes)
            return model
        fresh = seeded_network(self.task, self.seed)
        model = copy.deepcopy(self.start).cpu()
        trainable = {name for name, p in fresh.named_parameters() if p.requires_grad}
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name in trainable)
        return model

    def by_gradient(self, model: nn.Module | None = None) -> BaseTraining:
        """Train with `params.optimizer` on the mean of `task.training_loss`; keep the epoch with the best val_loss.

        If a network is trained further, its initial validation loss, epoch 0 in the curve, counts too: if no epoch is
        better, the initial weights are kept.

        Args:
            model: the network, changed in place; default: `network()`.

        Raises:
            UserError: there is nothing to train.
            DivergedError: a loss is NaN or infinite; the message names the epoch.
        """
        model = self.network() if model is None else model
        model.to(self.device)
        updates = _Updates(model, self)
        curve: list[dict[str, float]] = []
        best: dict[str, float] = {"val_loss": math.inf}
        best_weights: dict[str, Tensor] = {}
        if self.start is not None:
            on_val = self._on_val(model)
            curve.append({"epoch": 0, **on_val})
            best = {"best_epoch": 0, **on_val}
            best_weights = copy.deepcopy(model.state_dict())
        for epoch in range(1, self.params.epochs + 1):
            torch.manual_seed(derive_seed(self.seed, "base", "dropout", epoch))
            train_loss = updates.epoch(epoch)
            row = self._on_val(model)
            if not math.isfinite(row["val_loss"]):
                raise _diverged("validation", row["val_loss"], epoch, self)
            curve.append({"epoch": epoch, "train_loss": train_loss, **row})
            if row["val_loss"] < best["val_loss"]:
                best = {"best_epoch": epoch, **row}
                best_weights = copy.deepcopy(model.state_dict())
            stop = epoch - best["best_epoch"] >= self.params.patience
            early = stop and epoch < self.params.epochs
            note = "stopped early" if early else f"train loss {train_loss:.4f}"
            self.progress(epoch, f"{note}, val loss {row['val_loss']:.4f}")
            if stop:
                break
        model.load_state_dict(best_weights)
        return BaseTraining(model, curve, {"epochs": curve[-1]["epoch"], **best})

    def as_it_is(self, model: nn.Module) -> BaseTraining:
        """Measure a network that needs no (more) training on both splits.

        Raises:
            UserError: its validation loss is NaN or infinite.
        """
        model.to(self.device)
        on_val = self._on_val(model)
        if not math.isfinite(on_val["val_loss"]):
            where = "" if self.params.checkpoint is None else f" of base.checkpoint {self.params.checkpoint}"
            raise UserError(f"the base network{where} has a validation loss of {on_val['val_loss']}")
        row = {"epoch": 0, "train_loss": evaluate_model(self.task, model, self.train)["loss"], **on_val}
        return BaseTraining(model, [row], {"epochs": 0, "best_epoch": 0, **on_val})

    def _on_val(self, model: nn.Module) -> dict[str, float]:
        return {f"val_{k}": v for k, v in evaluate_model(self.task, model, self.val).items() if k != "n"}


def fit_base(
    task: Task,
    train: Split,
    val: Split,
    params: BaseParams,
    seed: int,
    progress: Progress = no_progress,
    start: nn.Module | None = None,
    device: torch.device | str = "cpu",
    lr_name: str = "base.lr",
) -> BaseTraining:
    """Train the task's base network with `task.fit`, by default `BaseFit.by_gradient`.

    With `params.checkpoint`, the network is loaded instead and only evaluated.

    Args:
        task: gives the network, its training batches, loss and metrics.
        train, val: the splits.
        params: the group `base`.
        seed: the run's seed.
        progress: called with the number of epochs done.
        start: a network to train further, with a new optimiser, instead of one with fresh weights (it is not changed).
        device: where to train and evaluate; the network comes back on the CPU.
        lr_name: what the params call the learning rate, for errors.

    Raises:
        UserError: a split is empty, training fails (see `BaseFit.by_gradient`), or loading fails (see `load_base`).
    """
    for name, split in (("train", train), ("val", val)):
        if len(split) == 0:
            raise UserError(f"the {name} split is empty")
    place = torch.device(device)
    fit = BaseFit(task, train, val, params, seed, place, progress, start, lr_name=lr_name)
    with torch.random.fork_rng([place] if place.type == "cuda" else []):
        torch.manual_seed(derive_seed(seed, "base", "weights"))
        result = task.fit(fit) if params.checkpoint is None else fit.as_it_is(load_base(task, params, seed))
    return BaseTraining(result.model.cpu().eval(), result.curve, result.metrics, tuple(dict.fromkeys(fit.notes)))


def seeded_network(task: Task, seed: int) -> nn.Module:
    """The task's network with fresh weights, a function of the seed."""
    with torch.random.fork_rng([]):
        torch.manual_seed(derive_seed(seed, "base", "weights"))
        return task.build_model()


def starting_network(task: Task, seed: int) -> tuple[nn.Module, list[str]]:
    """The network that a training begins with: fresh weights, or published ones; and what must be said of these.

    Raises:
        UserError: the published weights cannot be read or do not fit.
    """
    network = seeded_network(task, seed)
    return network, network.load_pretrained() if isinstance(network, Pretrained) else []


def load_base(task: Task, params: BaseParams, seed: int) -> nn.Module:
    """The task's base network with the weights of `base.checkpoint`, in eval mode.

    `{seed}` in the path stands for the seed. Parameters that the file does not set (see `Task.load_checkpoint`) have
    fresh weights from the seed.

    Raises:
        UserError: the file is missing, unreadable or for another architecture (see `load_weights`).
    """
    assert params.checkpoint is not None
    model = seeded_network(task, seed)
    task.load_checkpoint(model, path_of(params.checkpoint.replace("{seed}", str(seed))))
    return model.eval()


class _Updates:
    """The updates of a network's trainable parameters, epoch by epoch."""

    def __init__(self, model: nn.Module, fit: BaseFit) -> None:
        self.model, self.fit = model, fit
        trainable = [p for p in model.parameters() if p.requires_grad]
        if not trainable:
            raise UserError(
                "every parameter of the base network is frozen, so there is nothing to train: leave some with "
                "requires_grad, use base.checkpoint, or override Task.fit"
            )
        self.optimizer = _optimizer(trainable, fit.params)
        self.batches = math.ceil(len(fit.train) / fit.params.batch_size)  # per epoch

    def epoch(self, epoch: int) -> float:
        """One pass over the training split in a new order; the mean loss of its samples."""
        task, params, seed = self.fit.task, self.fit.params, self.fit.seed
        order = permutation(len(self.fit.train), seed, "base", "order", epoch)
        set_training_mode(self.model)
        total = 0.0
        # batches of nearly equal size: a last batch of one sample would break batch normalisation
        for i, sample_id in enumerate(order.tensor_split(self.batches)):
            batch = task.training_batch(self.fit.train, sample_id, seed, epoch).to(self.fit.device)
            loss_N = task.training_loss(self.model(*batch.inputs), batch.target, params.label_smoothing)
            assert loss_N.shape == (len(batch),), "Task.training_loss must give one loss per sample"
            summed = float(loss_N.detach().double().sum())
            if not math.isfinite(summed):
                raise _diverged("training", summed, epoch, self.fit)
            self._set_rate((epoch - 1) * self.batches + i)
            self.optimizer.zero_grad(set_to_none=True)
            loss_N.mean().backward()  # type: ignore[no-untyped-call]
            self.optimizer.step()
            total += summed
        return total / len(order)

    def _set_rate(self, update: int) -> None:
        params, per_epoch = self.fit.params, self.batches
        rate = learning_rate(
            params.lr,
            update,
            params.epochs * per_epoch,
            params.lr_schedule,
            params.warmup * per_epoch,
            [epoch * per_epoch for epoch in params.lr_steps],
            params.lr_factor,
        )
        for group in self.optimizer.param_groups:
            group["lr"] = rate


def set_training_mode(model: nn.Module) -> None:
    """Training mode for all modules except those with only frozen parameters, which get eval mode."""
    model.train()
    for module in model.modules():
        frozen = [not p.requires_grad for p in module.parameters()]
        if frozen and all(frozen):
            module.eval()


def _optimizer(parameters: list[nn.Parameter], params: BaseParams) -> torch.optim.Optimizer:
    if params.optimizer == "sgd":
        return torch.optim.SGD(
            parameters, params.lr, momentum=params.momentum, weight_decay=params.weight_decay, nesterov=params.nesterov
        )
    kind = torch.optim.AdamW if params.optimizer == "adamw" else torch.optim.Adam
    return kind(parameters, lr=params.lr, weight_decay=params.weight_decay)


def _diverged(which: str, loss: float, epoch: int, fit: BaseFit) -> DivergedError:
    text = (
        f"the {which} loss of the base network became {loss} in epoch {epoch}: lower {fit.lr_name} (now "
        f"{fit.params.lr:g}), or check the data for bad values"
    )
    return DivergedError(text, epoch)
