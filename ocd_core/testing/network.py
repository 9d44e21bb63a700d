"""Checks of a task's network and its losses."""

import copy

import torch
from torch import Tensor, nn

from ocd_core.errors import UserError
from ocd_core.network.layers import matrix_layers
from ocd_core.samples import Batch, Tensors, as_tuple, map_tensors, select
from ocd_core.tasks.base import Task
from ocd_core.testing.common import SEED, close, described, doubled, finite, require, row


def check_model(task: Task, batch: Batch) -> nn.Module:
    """Check the network; returns it in eval mode and float64."""
    with torch.random.fork_rng([]):
        torch.manual_seed(SEED)
        model = task.build_model()
        torch.manual_seed(SEED)
        again = task.build_model()
    require(isinstance(model, nn.Module), f"build_model must return a torch.nn.Module, not {type(model).__name__}")
    weights = model.state_dict()
    require(
        all(torch.equal(weights[k], v) for k, v in again.state_dict().items()),
        "build_model must give the same weights for the same torch.manual_seed",
    )
    require(
        bool(matrix_layers(model)), "the model has no layer that could move: no Linear, Conv1d or Conv2d without groups"
    )
    model.eval()
    with torch.no_grad():
        output = model(*batch.inputs)
        _check_output(output, batch)
        require(
            close(model(*batch.inputs), output, 0.0), "the model in eval mode gives a different output at a second call"
        )
        return _check_double(model, batch)


def _check_output(output: Tensors, batch: Batch) -> None:
    require(
        isinstance(output, Tensor) or (isinstance(output, tuple) and all(isinstance(x, Tensor) for x in output)),
        f"the model must return a tensor or a tuple of tensors, not a {type(output).__name__}",
    )
    for part in as_tuple(output):
        require(
            part.dim() > 0 and len(part) == len(batch),
            f"the model's output has shape {described(part)} for {len(batch)} samples: keep the samples in the first "
            "axis",
        )
        require(part.is_floating_point() and finite(part), "the model's output must be finite floating point")


def _check_double(model: nn.Module, batch: Batch) -> nn.Module:
    double = copy.deepcopy(model).double()
    try:
        output = double(*doubled(batch).inputs)
    except RuntimeError as error:
        raise AssertionError(
            f"the model must also run in float64 (make constants in the dtype of the inputs): {error}"
        ) from error
    for part in as_tuple(output):
        require(
            part.dtype == torch.float64,
            f"the model's output is {part.dtype} for float64 weights and inputs: do not cast inside the model",
        )
    for i in range(len(batch)):
        require(
            close(select(output, slice(i, i + 1)), double(*row(doubled(batch), i).inputs), 1e-9),
            "the model mixes the samples of a batch (a sample alone gives a different output): normalise within a "
            "sample, not over the batch",
        )
    return double


def check_losses(task: Task, output: Tensors, batch: Batch) -> None:
    """Check the loss on which samples are overfitted, and the one on which the base is trained."""
    for dtype in (torch.float32, torch.float64):
        value = map_tensors(lambda x: x.detach().to(dtype).requires_grad_(True), output)  # noqa: B023
        loss_N = task.loss(value, batch.target)
        _check_loss("loss", loss_N, len(batch))
        require(
            loss_N.dtype == dtype,
            f"loss must keep the dtype of the output: {loss_N.dtype} for {dtype} (in float32 the weight change of a "
            "confident sample is noise)",
        )
        require(loss_N.requires_grad, "loss is not differentiable in the output: it was detached or is made of counts")
        gradients = torch.autograd.grad(loss_N.sum(), as_tuple(value), allow_unused=True)
        require(
            all(finite(g) for g in gradients if g is not None),
            "the gradient of loss is NaN or infinite for an untrained network",
        )
    for smoothing in (0.0, 0.1):
        try:
            _check_loss("training_loss", task.training_loss(output, batch.target, smoothing), len(batch))
        except UserError as error:
            require(smoothing > 0, f"training_loss refuses a label smoothing of 0: {error}")


def _check_loss(name: str, loss_N: Tensor, count: int) -> None:
    found = described(loss_N) if isinstance(loss_N, Tensor) else type(loss_N).__name__
    require(
        isinstance(loss_N, Tensor) and loss_N.shape == (count,),
        f"{name} must give one number per sample, shape ({count},), not {found}: no mean over the batch",
    )
    require(finite(loss_N), f"{name} is NaN or infinite for an untrained network")
