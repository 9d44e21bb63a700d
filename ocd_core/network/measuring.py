"""Loss and metrics of a network on a whole split."""

import math

import torch
from torch import Tensor, nn

from ocd_core.errors import UserError
from ocd_core.network.blocks import network_outputs
from ocd_core.samples import Split, Tensors, concatenate, groups_of, map_tensors, rows_at_once, whole_split
from ocd_core.tasks.base import Task


@torch.no_grad()
def evaluate_model(task: Task, model: nn.Module, split: Split, batch_size: int | None = None) -> dict[str, float]:
    """Mean loss and metrics of a network on a split, in eval mode (the network's mode is restored).

    Per-sample values are summed in float64. batch_size: None uses the task's `evaluation_batch`; samples that differ in
    shape are taken one by one. Returns `loss`, every metric of the task by name that is defined on the split, and `n`,
    the number of samples.

    Raises:
        UserError: the split is empty, or has no groups although the task has a metric of groups.
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
        size = rows_at_once(split, batch_size or task.evaluation_batch)
        for sample_id in torch.split(whole_split(split), size):
            batch = split.batch(sample_id).to(device)
            output = network_outputs(model, batch.inputs)
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
        elif metric.kind == "over_split":
            try:
                found[metric.name] = metric.measure_split(concatenate(outputs), concatenate(targets))
            except ValueError:  # not defined
                continue
        else:
            by_group = metric.measure_groups(concatenate(outputs), concatenate(targets), groups_of(split))
            found[metric.name] = metric.finish(float(by_group.mean()))
    return {
        **{name: value for name, value in found.items() if not math.isnan(value) or name == "loss"},
        "n": len(split),
    }
