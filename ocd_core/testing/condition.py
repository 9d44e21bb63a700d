"""Checks of I(x), of the description of an output, and of the function that draws the domain's own figures."""

import copy
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from ocd_core.errors import UserError
from ocd_core.network.cut import Cut, CutModel
from ocd_core.network.layers import matrix_layers
from ocd_core.samples import Batch, Condition, Rows, Tensors, map_tensors, one_sample, select
from ocd_core.tasks.base import Task
from ocd_core.tasks.pictures import drawing_function
from ocd_core.testing.common import close, finite, require, row


def check_conditions(task: Task, model: nn.Module, batch: Batch, layers: Sequence[str] | None) -> str:
    """Check I(x) at each layer; returns the last one that can move."""
    refused, possible = [], []
    names = list(matrix_layers(model)) if layers is None else list(layers)
    for name in names:
        try:
            cut_model = CutModel(copy.deepcopy(model).float(), name)
            cut = cut_model.prefix(batch.inputs)
        except UserError as error:
            refused.append(str(error))
        else:
            _check_condition(task, cut_model, cut, batch)
            possible.append(name)
    require(bool(possible), f"the model cannot be cut at any of its layers: {'; '.join(refused)}")
    require(layers is None or not refused, f"the model cannot be cut at a layer you named: {'; '.join(refused)}")
    return possible[-1]


def _check_condition(task: Task, model: CutModel, cut: Cut, batch: Batch) -> None:
    what = f"condition for layer {model.layer_name!r}"
    with torch.no_grad():
        in_double, double_output = model.forward(cut)
        activation, output = in_double.float(), map_tensors(Tensor.float, double_output)

    def condition(of: Batch, rows: Rows) -> Condition:
        return task.condition(of, cut.layer_input[rows], activation[rows], select(output, rows))

    found = condition(batch, slice(None))
    require(isinstance(found, Condition), f"{what} must be an ocd_core.tasks.Condition")
    for part, value in zip(("layer_input", "layer_activation", "base_output"), found.parts(), strict=True):
        require(
            value.dtype == torch.float32 and value.dim() > 1 and len(value) == len(batch) and finite(value),
            f"{what}: {part} must be finite float32 of shape (N, ...) for {len(batch)} samples, not "
            f"{value.dtype} {tuple(value.shape)}",
        )
    for i in range(len(batch)):
        alone = condition(row(batch, i), slice(i, i + 1))
        require(
            all(close(a, p[i : i + 1], 1e-5) for a, p in zip(alone.parts(), found.parts(), strict=True)),
            f"{what} of a sample depends on the other samples of the batch",
        )
    for other in (torch.zeros_like, torch.ones_like):  # the batch may have one of them
        unlabelled = condition(replace(batch, target=map_tensors(other, batch.target)), slice(None))
        require(
            all(torch.equal(a, b) for a, b in zip(unlabelled.parts(), found.parts(), strict=True)),
            f"{what} reads the target, which is unknown at test time",
        )


def check_words(task: Task, model: nn.Module, batch: Batch, output: Tensors, example: Path | None) -> None:
    """Check what `ocd predict` says about an output and reads from a file."""
    words = task.describe_output(one_sample(output, 0))
    require(
        isinstance(words, dict) and bool(words) and all(isinstance(v, str | float | int) for v in words.values()),
        f"describe_output must return names with a text or number each, not {words!r}",
    )
    if example is None:
        return
    inputs = task.read_input(example)
    shapes = [(tuple(x.shape), x.dtype) for x in inputs]
    wanted = [(tuple(x[:1].shape), x.dtype) for x in batch.inputs]
    require(shapes == wanted, f"read_input must give the model's inputs for one sample: {wanted}, not {shapes}")
    with torch.no_grad():
        described = task.describe_output(one_sample(copy.deepcopy(model).float()(*inputs), 0))
    require(bool(described), "describe_output says nothing about the example")


def check_pictures(task: Task) -> None:
    """Check that the function that draws the domain's own figures can be imported."""
    if task.pictures is None:
        return
    try:
        drawing_function(task.pictures)
    except UserError as error:
        raise AssertionError(str(error)) from error
