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

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from ocd_core.apply import row_chunks
from ocd_core.layers import Cut, SplitModel, weight_matrix
from ocd_core.progress import Progress, no_progress
from ocd_core.rng import torch_generator
from ocd_core.tasks.base import Batch, Task

_DOUBLE = 8
_PREFIX_BYTES = 64 << 20  # the layer's inputs (float64) of the samples that are in flight at once
_NOISE_NUMBERS = 1 << 21  # normal numbers in a block of draws, but at least one draw
_BLOCK = 256  # draws in a block, at most
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
    memory_mb: int = 8,
    progress: Progress = no_progress,
) -> Tensor:
    """L(f(x, θ^L), y) for `draws` perturbations θ^L = θ + N(0, scale²) of the layer's weight (not its bias).

    Args:
        batch: N samples, on the model's device.
        scale: standard deviation of the perturbation, in the units of the weights.
        seed: with the layer's name and the sample's id (shared regime: the number of the draw) it determines the
            draws; the memory bound and the other samples do not change them.
        memory_mb: bound on the working set in MiB, kept unless a single draw of one sample exceeds it. A few
            MiB, about the processor's cache, is fastest on a CPU.
        progress: called with the count of finished samples.

    Returns:
        float64 (N, D), on the CPU.
    """
    first = split.prefix([x[:1] for x in batch.inputs])
    rows = _rows_within(split, task, first, batch.target[:1], memory_mb)
    perturbation = _Perturbation(split, scale, draws, seed)
    _, positions, in_features = first.x_NPI.shape
    shared = is_shared(positions, in_features)
    per_sample = _DOUBLE * positions * in_features
    losses_ND = torch.empty((len(batch), draws), dtype=torch.float64)
    for group in row_chunks(len(batch), max(1, min(rows, _PREFIX_BYTES // per_sample))):
        cut = split.prefix([x[group] for x in batch.inputs])
        sample_id, target = batch.sample_id[group], batch.target[group]
        tail_cut = Cut(cut.x_NPI[:, :0], cut.layer_input[:, :0], cut.layer_shape, cut.context)  # what the tail reads
        parts = perturbation.shared(cut, rows) if shared else perturbation.reparametrised(cut, sample_id, rows)
        for part in parts:
            selected = torch.arange(part.samples.start, part.samples.stop).repeat_interleave(part.draws)
            output = split.tail(part.z_BPO, tail_cut.select(selected))[1]
            loss = task.loss(output, target[selected])
            assert loss.dtype == torch.float64, loss.dtype
            assert loss.shape == (len(selected),), loss.shape
            into = losses_ND[group][part.samples]
            into[:, part.first_draw : part.first_draw + part.draws] = loss.view(-1, part.draws).cpu()
        progress(group.stop, "")
    return losses_ND


def is_shared(positions: int, in_features: int) -> bool:
    """Whether drawing the weights costs less than drawing the layer's output (see the module)."""
    return positions > 1 and positions + _NORMAL_COST > in_features


@dataclass(frozen=True)
class _Part:
    """The layer's perturbed output without bias (float64) for some samples × `draws` consecutive draws."""

    samples: slice
    first_draw: int
    draws: int
    z_BPO: Tensor


class _Perturbation:
    """Perturbed outputs of the layer, in parts of at most `rows` rows (at least one)."""

    def __init__(self, split: SplitModel, scale: float, draws: int, seed: int) -> None:
        self._split, self._scale, self._draws, self._seed = split, scale, draws, seed

    def reparametrised(self, cut: Cut, sample_id: Tensor, rows: int) -> Iterator[_Part]:
        z_NPO = self._split.layer_output(cut)
        factor_NPR = _factor(cut.x_NPI.double()) * self._scale
        inner, units = factor_NPR.shape[2], z_NPO.shape[2]
        block = min(_BLOCK, max(1, _NOISE_NUMBERS // (inner * units)))
        ids = sample_id.tolist()
        for start in range(0, self._draws, block):
            count = min(block, self._draws - start)
            per_part = max(1, rows // count)  # samples
            for samples in row_chunks(len(cut), per_part):
                noise_NDRO = torch.stack(
                    [
                        self._normal((count, inner, units), "sample", ids[n], start)
                        for n in range(*samples.indices(len(ids)))
                    ]
                )
                for part in row_chunks(count, rows):
                    moved = factor_NPR[samples, None] @ noise_NDRO[:, part].double()
                    z_NDPO = z_NPO[samples, None] + moved
                    yield _Part(samples, start + part.start, part.stop - part.start, z_NDPO.flatten(0, 1))

    def shared(self, cut: Cut, rows: int) -> Iterator[_Part]:
        x_NPI = cut.x_NPI.double()
        weight_IO = self._split.weight_OI.double().T
        block = min(_BLOCK, max(1, _NOISE_NUMBERS // weight_IO.numel()))
        for start in range(0, self._draws, block):
            count = min(block, self._draws - start)
            noise_DIO = self._normal((count, *weight_IO.shape), "shared", start)
            for part in row_chunks(count, rows):
                weight_DIO = weight_IO + self._scale * noise_DIO[part].double()
                for n, x_PI in enumerate(x_NPI):
                    z_DPO = torch.bmm(x_PI.expand(len(weight_DIO), -1, -1), weight_DIO)
                    yield _Part(slice(n, n + 1), start + part.start, part.stop - part.start, z_DPO)

    def _normal(self, shape: tuple[int, ...], *purpose: str | int) -> Tensor:
        """Standard normal numbers, float32; exact enough for noise, and several times faster than float64."""
        generator = torch_generator(self._seed, "perturbation", self._split.layer_name, *purpose)
        return torch.randn(shape, generator=generator).to(self._split.device)


def _factor(x_NPI: Tensor) -> Tensor:
    """A (N, P, R) such that A Aᵀ = X Xᵀ, for P <= I or P = 1."""
    if x_NPI.shape[1] == 1:
        norm_NPR: Tensor = torch.linalg.vector_norm(x_NPI, dim=2, keepdim=True)
        return norm_NPR
    triangle_NRP: Tensor = torch.linalg.qr(x_NPI.mT, mode="r").R
    return triangle_NRP.mT


class _OutputBytes(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of every operation's result."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.total: int = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
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
