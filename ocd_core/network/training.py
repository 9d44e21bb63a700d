"""The base network f_θ: trained by Adam with early stopping on the validation loss, or loaded from a checkpoint.

Runs repeat bit for bit on one machine (with one number of threads): the order of samples, fresh weights and dropout
are functions of the seed and the epoch alone.
"""

import copy
import math
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from ocd_core.errors import UserError
from ocd_core.network.params import BaseParams
from ocd_core.progress import Progress, no_progress
from ocd_core.rng import derive_seed, permutation
from ocd_core.samples import Split, Tensors, concatenate, groups_of, map_tensors, whole_split
from ocd_core.tasks.base import Task


@dataclass(frozen=True)
class BaseTraining:
    """What `fit_base` returns.

    model: the network of the best epoch, in eval mode.
    curve: one row an epoch, from 1: epoch, train_loss (mean over the epoch's batches, with dropout and augmentation),
        val_loss and val_<metric>. A loaded network has one row, epoch 0.
    metrics: epochs, best_epoch, val_loss and val_<metric> of the best epoch.
    """

    model: nn.Module
    curve: list[dict[str, float]]
    metrics: dict[str, float]


def fit_base(
    task: Task,
    train: Split,
    val: Split,
    params: BaseParams,
    seed: int,
    progress: Progress = no_progress,
    start: nn.Module | None = None,
    device: torch.device | str = "cpu",
) -> BaseTraining:
    """Train the task's base network on the mean of `task.loss`, and keep the epoch with the best validation loss.

    With `params.checkpoint`, the network is loaded instead and only evaluated.

    Args:
        task: gives the network, its training batches, loss and metrics.
        train, val: the splits.
        params: the group `base`.
        seed: the run's seed.
        progress: called with the epochs done.
        start: a network to train further, with a new optimiser, instead of one with fresh weights (it is not changed).
            Its own validation loss, epoch 0 in the curve, counts too: where nothing is better, it is returned.
        device: where to train and evaluate; the network comes back on the CPU.

    Raises:
        UserError: an empty split, a loss that is NaN or infinite (the message names the epoch), or a bad checkpoint
            (see `load_base`).
    """
    if params.checkpoint is not None:
        return _loaded(task, train, val, params, device)
    for name, split in (("train", train), ("val", val)):
        if len(split) == 0:
            raise UserError(f"the {name} split is empty")
    place = torch.device(device)
    with torch.random.fork_rng([place] if place.type == "cuda" else []):
        torch.manual_seed(derive_seed(seed, "base", "weights"))
        model = task.build_model() if start is None else copy.deepcopy(start).requires_grad_(True)
        model.to(place)
        optimizer = torch.optim.Adam(model.parameters(), lr=params.lr, weight_decay=params.weight_decay)
        curve: list[dict[str, float]] = []
        best: dict[str, float] = {"val_loss": math.inf}
        best_weights: dict[str, Tensor] = {}
        if start is not None:
            on_val = _on_val(task, model, val)
            curve.append({"epoch": 0, **on_val})
            best = {"best_epoch": 0, **on_val}
            best_weights = copy.deepcopy(model.state_dict())
        for epoch in range(1, params.epochs + 1):
            torch.manual_seed(derive_seed(seed, "base", "dropout", epoch))
            train_loss = _train_epoch(task, model, optimizer, train, params, seed, epoch)
            row = _on_val(task, model, val)
            if not math.isfinite(row["val_loss"]):
                raise UserError(_diverged("validation", row["val_loss"], epoch, params))
            curve.append({"epoch": epoch, "train_loss": train_loss, **row})
            if row["val_loss"] < best["val_loss"]:
                best = {"best_epoch": epoch, **row}
                best_weights = copy.deepcopy(model.state_dict())
            progress(epoch, f"train loss {train_loss:.4f}, val loss {row['val_loss']:.4f}")
            if epoch - best["best_epoch"] >= params.patience:
                break
    model.load_state_dict(best_weights)
    return BaseTraining(model.cpu().eval(), curve, {"epochs": curve[-1]["epoch"], **best})


def load_base(task: Task, params: BaseParams) -> nn.Module:
    """The task's base network with the weights of `base.checkpoint`, in eval mode.

    Raises:
        UserError: the file is missing, unreadable or of another architecture (see `load_weights`).
    """
    assert params.checkpoint is not None
    model = task.build_model()
    task.load_checkpoint(model, Path(params.checkpoint).expanduser())
    return model.eval()


def _loaded(task: Task, train: Split, val: Split, params: BaseParams, device: torch.device | str) -> BaseTraining:
    model = load_base(task, params).to(device)
    on_val = _on_val(task, model, val)
    if not math.isfinite(on_val["val_loss"]):
        raise UserError(f"base.checkpoint: {params.checkpoint} gives a validation loss of {on_val['val_loss']}")
    row = {"epoch": 0, "train_loss": evaluate_model(task, model, train)["loss"], **on_val}
    return BaseTraining(model.cpu(), [row], {"epochs": 0, "best_epoch": 0, **on_val})


def _on_val(task: Task, model: nn.Module, val: Split) -> dict[str, float]:
    return {f"val_{k}": v for k, v in evaluate_model(task, model, val).items() if k != "n"}


@torch.no_grad()
def evaluate_model(task: Task, model: nn.Module, split: Split, batch_size: int | None = None) -> dict[str, float]:
    """Mean loss and metrics of a network on a split, as it is used (eval mode; the network's mode is restored).

    Per-sample values are summed in float64. batch_size: None takes the task's `evaluation_batch`. Returns `loss`,
    every metric of the task by name, and `n`, the count of samples.

    Raises:
        UserError: the split is empty, or has no groups and the task has a metric of groups.
    """
    if len(split) == 0:
        raise UserError("cannot evaluate on an empty split")
    device = next(model.parameters()).device
    was_training = model.training
    model.eval()
    metrics = task.metrics
    sums = dict.fromkeys(["loss", *(m.name for m in metrics if m.kind == "per_sample")], 0.0)
    together = [m for m in metrics if m.kind != "per_sample"]
    outputs: list[Tensors] = []
    targets: list[Tensors] = []
    try:
        for sample_id in torch.split(whole_split(split), batch_size or task.evaluation_batch):
            batch = split.batch(sample_id).to(device)
            output = model(*batch.inputs)
            sums["loss"] += float(task.loss(output, batch.target).double().sum())
            for metric in metrics:
                if metric.kind == "per_sample":
                    sums[metric.name] += float(metric.measure(output, batch).double().sum())
            if together:
                outputs.append(map_tensors(Tensor.cpu, output))
                targets.append(map_tensors(Tensor.cpu, batch.target))
    finally:
        model.train(was_training)
    means = {name: total / len(split) for name, total in sums.items()}
    found = {"loss": means["loss"]}
    for metric in metrics:
        if metric.kind == "per_sample":
            found[metric.name] = metric.finish(means[metric.name])
        elif metric.over_split is not None:
            found[metric.name] = float(metric.over_split(concatenate(outputs), concatenate(targets)))
        else:
            by_group = metric.measure_groups(concatenate(outputs), concatenate(targets), groups_of(split))
            found[metric.name] = metric.finish(float(by_group.mean()))
    return {**found, "n": len(split)}


def _train_epoch(
    task: Task,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    train: Split,
    params: BaseParams,
    seed: int,
    epoch: int,
) -> float:
    """One pass over the training split in a new order; the mean loss of its samples."""
    order = permutation(len(train), seed, "base", "order", epoch)
    # batches of nearly equal size: a last batch of one sample would break batch normalisation
    batches = order.tensor_split(math.ceil(len(order) / params.batch_size))
    model.train()
    device = next(model.parameters()).device
    total = 0.0
    for sample_id in batches:
        batch = task.training_batch(train, sample_id, seed, epoch).to(device)
        loss_N = task.loss(model(*batch.inputs), batch.target)
        assert loss_N.shape == (len(batch),), "Task.loss must give one loss a sample"
        summed = float(loss_N.detach().double().sum())
        if not math.isfinite(summed):
            raise UserError(_diverged("training", summed, epoch, params))
        optimizer.zero_grad(set_to_none=True)
        loss_N.mean().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        total += summed
    return total / len(order)


def _diverged(which: str, loss: float, epoch: int, params: BaseParams) -> str:
    return (
        f"the {which} loss of the base network became {loss} in epoch {epoch}: lower base.lr (now {params.lr:g}), "
        "or look for bad values in the data"
    )
