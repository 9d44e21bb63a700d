"""What the checks of `check_task` share."""

from dataclasses import replace

import torch
from torch import Tensor

from ocd_core.samples import Batch, Split, Tensors, as_tuple, map_tensors

SEED = 0
_SAMPLES = 4


def require(kept: bool, message: str) -> None:
    """An assertion that `python -O` does not remove."""
    if not kept:
        raise AssertionError(message)


def some_ids(split: Split) -> Tensor:
    """Some rows, out of order and with a repetition."""
    rows = list(range(min(len(split), _SAMPLES)))
    return torch.tensor([*reversed(rows), rows[0]])


def spread_ids(split: Split, count: int) -> Tensor:
    """`count` rows, spread over the split; rows of a short split are repeated."""
    return torch.linspace(0, len(split) - 1, count).round().long()


def close(a: Tensors, b: Tensors, tolerance: float) -> bool:
    """Whether two values have one structure and are equal to within `tolerance` of each tensor's largest number."""
    first, second = as_tuple(a), as_tuple(b)
    return len(first) == len(second) and all(_close(x, y, tolerance) for x, y in zip(first, second, strict=True))


def _close(a: Tensor, b: Tensor, tolerance: float) -> bool:
    scale = max(float(b.abs().max()), 1e-30) if b.numel() else 1.0
    return a.shape == b.shape and bool(((a - b).abs() <= tolerance * scale).all())


def finite(x: Tensors) -> bool:
    """Whether no floating-point tensor holds NaN or infinity."""
    return all(bool(torch.isfinite(part).all()) for part in as_tuple(x) if part.is_floating_point())


def equal(a: Batch, b: Batch) -> bool:
    """Whether two batches have the same inputs and targets."""
    first, second = (*a.inputs, *as_tuple(a.target)), (*b.inputs, *as_tuple(b.target))
    return len(first) == len(second) and all(torch.equal(x, y) for x, y in zip(first, second, strict=True))


def row(batch: Batch, i: int) -> Batch:
    """One sample as a batch."""
    return batch.select(slice(i, i + 1))


def as_double(x: Tensors) -> Tensors:
    """Floating-point tensors in float64, others unchanged."""
    return map_tensors(lambda part: part.double() if part.is_floating_point() else part, x)


def doubled(batch: Batch) -> Batch:
    """The same with inputs in float64."""
    return replace(batch, inputs=as_tuple(as_double(batch.inputs)))


def described(x: Tensors) -> str:
    """Shapes, for messages."""
    shapes = [str(tuple(part.shape)) for part in as_tuple(x)]
    return shapes[0] if len(shapes) == 1 else f"({', '.join(shapes)})"
