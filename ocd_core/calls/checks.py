"""What a network and a loss must do, tried on a few samples before anything runs."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ocd_core.calls.data import Parts
from ocd_core.calls.task import Given, Outputs
from ocd_core.errors import UserError
from ocd_core.files import is_shortage
from ocd_core.network.first_inputs import first_two, plain_output
from ocd_core.overfit.base_values import storable
from ocd_core.samples import Batch, Tensors, as_tuple, map_tensors, select

_HINT = "one loss per sample is needed, for example reduction='none', or a mean over the other axes only"


@torch.no_grad()
def check_given(given: Given, batch: Batch, targets: Sequence[Tensor]) -> tuple[Outputs, int | None]:
    """Check network and loss on a few samples, and say of which kind the outputs are.

    Args:
        batch: at least two samples to notice a loss that mixes them.
        targets: of these and more samples, to tell numbers from labels.

    Returns:
        the kind; and the number of classes, or None if the outputs are no scores of classes.

    Raises:
        UserError: the network fails, or see `plain_output`; the loss fails, or gives no loss per sample; targets are
            complex.
    """
    for part in as_tuple(batch.target):
        storable(part)
    count = len(batch)
    output = run_network(given, batch.inputs)
    for part in as_tuple(output):
        if part.dim() == 0 or len(part) != count:
            raise UserError(
                f"the model's output has shape {tuple(part.shape)} for {count} samples; the samples must stay in the "
                "first axis"
            )
    plain_output(given.network, first_two(batch.inputs))
    for dtype in (torch.float32, torch.float64):
        in_dtype = map_tensors(lambda x, dtype=dtype: x.to(dtype) if x.is_floating_point() else x, output)  # type: ignore[misc]
        _check_loss(given, in_dtype, batch)
    kind = _kind(output, batch.target, targets)
    return kind, output.shape[1] if kind == "classes" else None


@torch.no_grad()
def run_network(given: Given, inputs: Sequence[Tensor]) -> Any:
    """The network's output for some inputs, each (N, ...).

    Raises:
        UserError: the network fails.
    """
    shapes = ", ".join(str(tuple(x.shape)) for x in inputs)
    with _errors_named(f"the model fails on a batch of inputs of shape {shapes}"):
        return given.network(*inputs)


@torch.no_grad()
def first_output(network: nn.Module, inputs: Parts) -> Any:
    """What the user's own network gives for some inputs, each (N, ...), before it is adapted.

    Raises:
        UserError: the network fails.
    """
    with _errors_named("the model fails on some samples"):
        if inputs.names is not None:
            return network(**dict(zip(inputs.names, inputs.tensors, strict=True)))
        return network(*inputs.tensors)


@contextmanager
def _errors_named(what: str) -> Iterator[None]:
    """Whatever the user's own code raises becomes a UserError, but not that the machine lacked something."""
    try:
        yield
    except Exception as error:
        if is_shortage(error):
            raise
        raise UserError(f"{what}: {type(error).__name__}: {' '.join(str(error).split())[:300]}") from error


def as_batch(inputs: Parts, target: Parts) -> Batch:
    """Some samples as a batch; sample ids count from 0."""
    values = target.tensors[0] if len(target.tensors) == 1 else target.tensors
    return Batch(inputs.tensors, values, torch.arange(len(inputs.tensors[0])))


def _check_loss(given: Given, output: Any, batch: Batch) -> None:
    first = as_tuple(output)[0]
    with _errors_named(f"the loss fails on an output of shape {tuple(first.shape)} in {first.dtype}"):
        loss = given.loss_of(output, batch.target)
    if not isinstance(loss, Tensor):
        raise UserError(f"the loss returned a {type(loss).__name__}, not a tensor; {_HINT}")
    if loss.dim() == 0:
        raise UserError(f"the loss returned one number for {len(batch)} samples (a mean or a sum); {_HINT}")
    if loss.shape != (len(batch),):
        raise UserError(f"the loss has shape {tuple(loss.shape)} for {len(batch)} samples; {_HINT}")
    if loss.dtype != first.dtype:
        raise UserError(
            f"the loss is in {loss.dtype} for an output in {first.dtype}; convert targets to the dtype of the output: "
            "target.to(output.dtype)"
        )
    if not bool(torch.isfinite(loss).all()):
        raise UserError("the loss of some samples is NaN or infinite; check the data and the network's output")
    # of every sample: if outputs (N,) and targets (N, 1) are broadcast, the loss of the first one is right
    rows = [slice(row, row + 1) for row in range(len(batch))]
    alone = torch.cat([given.loss_of(select(output, row), select(batch.target, row)).flatten() for row in rows])
    if alone.shape != loss.shape or not _near(loss, alone) or _reads_others(given, output, batch.target, loss):
        raise UserError(f"the loss of a sample changes with the other samples of the batch; {_HINT}")


def _near(found: Tensor, wanted: Tensor) -> bool:
    return torch.allclose(found, wanted, rtol=1e-3, atol=1e-5)


def _reads_others(given: Given, output: Any, target: Tensors, loss: Tensor) -> bool:
    """Whether the loss of samples changes with others': where their targets are equal, nothing else shows it."""
    for first in (0, 1) if len(loss) > 1 else ():
        kept, others = slice(1 - first, None, 2), slice(first, None, 2)
        try:
            found = given.loss_of(_changed(output, others), _changed(target, others))
        except Exception as error:  # whatever the user's own code raises for targets that it does not know
            if is_shortage(error):
                raise
            continue
        if found.shape != loss.shape or not _near(found[kept], loss[kept]):
            return True
    return False


def _changed(x: Any, rows: slice) -> Any:
    """Other outputs or targets in some rows: probabilities stay such, and labels stay 0 or 1."""

    def change(part: Tensor) -> Tensor:
        part = part.clone()
        part[rows] = 1 - part[rows] if part.is_floating_point() else (part[rows] == 0).to(part.dtype)
        return part

    return map_tensors(change, x)


def _kind(output: Any, target: Any, targets: Sequence[Tensor]) -> Outputs:
    if not (isinstance(output, Tensor) and isinstance(target, Tensor)):
        return "other"
    if target.dtype == torch.int64 and target.dim() == 1 and output.dim() == 2 and output.shape[1] > 1:
        inside = bool((target >= 0).all()) and bool((target < output.shape[1]).all())
        return "classes" if inside else "other"
    if not (target.is_floating_point() and target.shape == output.shape):
        return "other"
    of_two_values = all(bool(((x == 0) | (x == 1)).all()) for x in (target, *targets))
    return "other" if of_two_values else "numbers"
