"""Losses of samples under Gaussian perturbations of one layer's weights, without a forward pass for each.

A Gaussian perturbation W ~ N(0, σ²) of a layer's weights moves its output X W at P positions by a Gaussian of
covariance σ² X Xᵀ over the positions, independent over the O output units (local reparameterisation). With
any A of shape (P, R) such that A Aᵀ = X Xᵀ, the product σ A G of standard normal G (R, O) has that
distribution exactly. For one position A is ‖x‖: O numbers instead of I·O, and no product at all. Two regimes:

- *reparametrised*: one position, or far fewer positions than in_features (A by a QR factorisation of Xᵀ). Every
  sample has draws of its own, keyed by its id.
- *shared*: otherwise (a convolution early in the network, the points of rays) the weights themselves are drawn, and
  a draw of θ^L serves every sample. Each sample's losses have the same distribution as with draws of
  its own; between samples they are dependent.

The prefix runs once a sample in float32, everything from the layer to the loss in float64 (see `layers`).

Dims: N samples, D draws, P positions, I in_features, O out_features, R = min(P, I), B rows = samples × draws.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode

from ocd_core.apply import row_chunks
from ocd_core.double_ops import fast_double_ops
from ocd_core.layers import Cut, SplitModel, weight_matrix
from ocd_core.progress import Progress, no_progress
from ocd_core.rng import torch_generator
from ocd_core.tasks.base import Batch, Task

_DOUBLE = 8
_PREFIX_BYTES = 64 << 20  # the layer's inputs (float64) of the samples that are in flight at once
_NOISE_NUMBERS = 1 << 20  # normal numbers in a block of draws, but at least one draw
# a normal number costs about as much as this many multiply-adds of a matrix product
_NORMAL_COST = 200


@torch.no_grad()
def perturbed_losses(
    split: SplitModel,
    task: Task,
    batch: Batch,
    scale: float,
    draws: int,
    seed: int,
    *,
    memory_mb: int = 12,
    progress: Progress = no_progress,
) -> Tensor:
    """L(f(x, θ^L), y) for `draws` perturbations θ^L = θ + N(0, scale²) of the layer's weight (not its bias).

    Args:
        batch: N samples, on the model's device.
        scale: standard deviation of the perturbation, in the units of the weights.
        seed: with the layer's name, the number of the draw and (reparametrised) the sample's id it determines the
            draws; neither the other samples nor the memory bound change them.
        memory_mb: bound on the working set of a batch of draws in MiB, kept unless a single draw exceeds it. A few
            times the processor's cache is fastest on a CPU.
        progress: called with the count of finished samples.

    Returns:
        float64 (N, D), on the CPU.
    """
    first = split.prefix([x[:1] for x in batch.inputs])
    rows = _rows_within(split, task, first, batch.target[:1], memory_mb)
    positions, in_features = first.x_NPI.shape[1:]
    perturbed = _shared if is_shared(positions, in_features) else _reparametrised
    normal = _Normal(seed, split, draws)
    fast = fast_double_ops()
    losses_ND = torch.empty((len(batch), draws), dtype=torch.float64)
    for group in row_chunks(len(batch), max(1, _PREFIX_BYTES // (_DOUBLE * positions * in_features))):
        cut = split.prefix([x[group] for x in batch.inputs])
        target = batch.target[group]
        for n, at, z_DPO in perturbed(split, cut, batch.sample_id[group].tolist(), scale, normal, rows):
            count = len(z_DPO)
            with fast:
                output = split.resume(z_DPO, _repeated(cut, n, count))[1]
            loss = task.loss(output, target[n : n + 1].expand(count, *target.shape[1:]))
            assert loss.dtype == torch.float64, loss.dtype
            assert loss.shape == (count,), loss.shape
            losses_ND[group.start + n, at : at + count] = loss
            if at + count == draws:
                progress(group.start + n + 1, "")
    return losses_ND


def is_shared(positions: int, in_features: int) -> bool:
    """Whether drawing the weights costs less than drawing the layer's output (see the module)."""
    return positions > 1 and positions + _NORMAL_COST > in_features


def _reparametrised(
    split: SplitModel, cut: Cut, ids: Sequence[int], scale: float, normal: "_Normal", rows: int
) -> Iterator[tuple[int, int, Tensor]]:
    """(sample, first draw, the layer's perturbed output with bias, float64) for at most `rows` draws at a time."""
    z_NPO1 = (split.layer_output(cut) + split.bias_O)[..., None]
    factor_NPR = _factor(cut.x_NPI.double()) * scale
    shape = factor_NPR.shape[2], z_NPO1.shape[2]
    for n, (factor_PR, z_PO1) in enumerate(zip(factor_NPR, z_NPO1, strict=True)):
        for start, noise_ROD in normal.blocks(shape, "sample", ids[n]):
            for part in row_chunks(noise_ROD.shape[2], rows):
                yield n, start + part.start, _product(factor_PR, noise_ROD[..., part].double(), z_PO1)


def _shared(
    split: SplitModel, cut: Cut, ids: Sequence[int], scale: float, normal: "_Normal", rows: int
) -> Iterator[tuple[int, int, Tensor]]:
    """The same from drawn weights, which all samples see."""
    x_NPI = cut.x_NPI.double()
    weight_IO1, bias_O1 = split.weight_OI.double().T[..., None], split.bias_O[:, None]
    for start, noise_IOD in normal.blocks(weight_IO1.shape[:2], "shared"):
        for part in row_chunks(noise_IOD.shape[2], rows):
            weight_IOD = weight_IO1 + scale * noise_IOD[..., part].double()
            for n in range(len(ids)):
                yield n, start + part.start, _product(x_NPI[n], weight_IOD, bias_O1)


def _product(a_PR: Tensor, b_ROD: Tensor, offset: Tensor) -> Tensor:
    """A B + offset for all draws in one product, (D, P, O); the draws stay innermost in memory (see `double_ops`)."""
    z_POD = (a_PR @ b_ROD.flatten(1)).unflatten(1, b_ROD.shape[1:])
    return z_POD.add_(offset).permute(2, 0, 1)


class _Normal:
    """Standard normal numbers in blocks of draws; a block is set by the layer's size alone."""

    def __init__(self, seed: int, split: SplitModel, draws: int) -> None:
        self._seed, self._split, self._draws = seed, split, draws

    def blocks(self, shape: Sequence[int], *purpose: str | int) -> Iterator[tuple[int, Tensor]]:
        """(first draw, numbers (*shape, D)); float32, which is exact enough for noise and fast to draw."""
        block = max(1, _NOISE_NUMBERS // math.prod(shape))
        for start in range(0, self._draws, block):
            generator = torch_generator(self._seed, "perturbation", self._split.layer_name, *purpose, start)
            noise = torch.randn((*shape, min(block, self._draws - start)), generator=generator)
            yield start, noise.to(self._split.device)


def _repeated(cut: Cut, row: int, count: int) -> Cut:
    """One sample `count` times, as far as the tail reads it: no copy is made."""

    def repeat(x: Tensor) -> Tensor:
        return x[row : row + 1].expand(count, *x.shape[1:])

    return Cut(repeat(cut.x_NPI), repeat(cut.layer_input), cut.layer_shape, tuple(map(repeat, cut.context)))


def _factor(x_NPI: Tensor) -> Tensor:
    """A (N, P, R) such that A Aᵀ = X Xᵀ, for P <= I or P = 1."""
    if x_NPI.shape[1] == 1:
        norm_NPR: Tensor = torch.linalg.vector_norm(x_NPI, dim=2, keepdim=True)
        return norm_NPR
    triangle_NRP: Tensor = torch.linalg.qr(x_NPI.mT, mode="r").R
    return triangle_NRP.mT


class _OutputBytes(TorchFunctionMode):
    """Counts the bytes of every operation's result."""

    def __init__(self) -> None:
        super().__init__()
        self.total: int = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if isinstance(out, Tensor):
            self.total += out.numel() * out.element_size()
        return out


def _rows_within(split: SplitModel, task: Task, cut: Cut, target: Tensor, memory_mb: int) -> int:
    """How many rows of the tail fit `memory_mb` MiB, from what one row's operations produce (at least 1)."""
    z_NPO = split.layer_output(cut)
    with _OutputBytes() as count:
        task.loss(split.tail(z_NPO, cut)[1], target)
    per_row: int = count.total + 3 * _DOUBLE * z_NPO.numel()
    return max(1, (memory_mb << 20) // per_row)


def layer_scale(split: SplitModel, noise: str, scale: float) -> float:
    """The standard deviation of the perturbation: `scale`, or that times the layer's rms weight."""
    rms = float(weight_matrix(split.layer).double().square().mean().sqrt())
    return scale if noise == "absolute" else scale * rms
