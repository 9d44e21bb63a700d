"""Losses of samples under Gaussian perturbations of one layer's weights, without a forward pass for each perturbation.

A Gaussian perturbation W ~ N(0, σ²) of a layer's weights moves its output X W at P positions by a Gaussian of
covariance σ² X Xᵀ over the positions, independent over the O output units (local reparameterisation). With
any A of shape (P, R) such that A Aᵀ = X Xᵀ, the product σ A G of standard normal G (R, O) has exactly that
distribution. For one position A is ‖x‖: this takes O numbers instead of I·O, and no product. There are two regimes:

- *reparametrised*: one position, or far fewer positions than in_features (A from a QR factorisation of Xᵀ). Every
  sample has its own draws, keyed by its id.
- *shared*: otherwise (a convolution early in the network, the points of rays) the weights themselves are drawn, and
  one draw of θ^L serves every sample. Each sample's losses have the same distribution as with separate draws, but
  they are dependent between samples. Fresh weights, which replace θ, are always shared.

The prefix runs once per sample in float32, and everything from the layer to the loss in float64 (see
`ocd_core.network.cut`).

Dims: N samples, D draws, P positions, I in_features, O out_features, R = min(P, I), B rows = samples × draws.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from ocd_core.network.cut import Cut, CutModel
from ocd_core.network.moves import fitting_rows, row_chunks
from ocd_core.progress import Progress, no_progress
from ocd_core.rng import torch_generator
from ocd_core.samples import Batch, Tensors, map_tensors, select
from ocd_core.scoring.double_ops import faster_graph
from ocd_core.tasks.base import Task

_DOUBLE = 8
_PREFIX_BYTES = 64 << 20  # the layer's inputs (float64) of the samples that are processed at once
_MEMORY_MB = 512  # the activations of the prefix of these samples
_NOISE_NUMBERS = 1 << 20  # normal numbers in a block of draws; a block has at least one draw
# drawing a normal number costs about as much as this many multiply-adds of a matrix product
_NORMAL_COST = 200


@torch.no_grad()
def perturbed_losses(
    model: CutModel,
    task: Task,
    batch: Batch,
    scale: float,
    draws: int,
    seed: int,
    *,
    fresh: bool = False,
    memory_mb: int = 8,
    progress: Progress = no_progress,
) -> Tensor:
    """L(f(x, θ^L), y) for `draws` perturbations θ^L = θ + N(0, scale²) of the layer's weight (not its bias).

    Args:
        batch: N samples, on the model's device.
        scale: standard deviation of the perturbation, in the units of the weights.
        seed: determines the draws, together with the layer's name, the number of the draw and (reparametrised) the
            sample's id; neither the other samples nor the memory bound change them.
        fresh: draw θ^L = N(0, scale²) in place of θ, the same draws for all samples.
        memory_mb: bound on the working set of a batch of draws in MiB, kept unless a single draw exceeds it. On a CPU,
            a few times the processor's cache is fastest.
        progress: called with the number of finished samples.

    Returns:
        float64 (N, D), on the CPU.
    """
    first = model.prefix([x[:2] for x in batch.inputs]).select(slice(0, 1))
    # not as few as the cache holds: every group draws the shared noise again
    in_memory = fitting_rows(model, batch.select(slice(0, 1)), _MEMORY_MB, matrices=0).in_memory
    model = model.for_outputs(faster_graph)
    rows = _rows_within(model, task, first, select(batch.target, slice(0, 1)), memory_mb)
    positions, in_features = first.x_NPI.shape[1:]
    source = _Draws(model, scale, draws, seed, rows, fresh)
    perturbed = source.shared if fresh or is_shared(positions, in_features) else source.reparametrised
    losses_ND = torch.empty((len(batch), draws), dtype=torch.float64)
    done = 0
    size = min(in_memory, max(1, _PREFIX_BYTES // (_DOUBLE * positions * in_features)))
    for group in row_chunks(len(batch), size):
        cut = model.prefix([x[group] for x in batch.inputs])
        target = select(batch.target, group)
        for n, at, z_DPO in perturbed(cut, batch.sample_id[group].tolist()):
            count = len(z_DPO)
            output = model.resume(z_DPO, _repeated(cut, n, count))[1]
            loss = task.loss(output, map_tensors(lambda t: _repeat(t, n, count), target))  # noqa: B023
            assert loss.dtype == torch.float64, loss.dtype
            assert loss.shape == (count,), loss.shape
            losses_ND[group.start + n, at : at + count] = loss
            done += count
            progress(done // draws, "")
    return losses_ND


def is_shared(positions: int, in_features: int) -> bool:
    """Whether drawing the weights costs less than drawing the layer's output (see the module's docstring)."""
    return positions > 1 and positions + _NORMAL_COST > in_features


class _Draws:
    """The layer's perturbed outputs, at most `rows` draws of one sample at a time.

    Both regimes yield (sample, number of the first draw, output with bias (D, P, O) in float64).
    """

    def __init__(self, model: CutModel, scale: float, draws: int, seed: int, rows: int, fresh: bool) -> None:
        self._model, self._scale, self._draws, self._seed, self._rows = model, scale, draws, seed, rows
        self._weight_OI = torch.zeros_like(model.weight_OI) if fresh else model.weight_OI
        self._convolution = model.kind == "conv"

    def reparametrised(self, cut: Cut, ids: Sequence[int]) -> Iterator[tuple[int, int, Tensor]]:
        z_NPO = self._model.layer_output(cut) + self._model.bias_O
        factor_NPR = _factor(cut.x_NPI.double()) * self._scale
        for n, (factor_PR, z_PO) in enumerate(zip(factor_NPR, z_NPO, strict=True)):
            for start, noise_DRO in self._noise(factor_PR.shape[1], "sample", ids[n]):
                for part in row_chunks(len(noise_DRO), self._rows):
                    yield n, start + part.start, self._product(factor_PR, noise_DRO[part].double()).add_(z_PO)

    def shared(self, cut: Cut, ids: Sequence[int]) -> Iterator[tuple[int, int, Tensor]]:
        # the bias is the weight of an input that is always 1
        x_NPI = F.pad(cut.x_NPI.double(), (0, 1), value=1.0)
        weight_IO = torch.cat([self._weight_OI.double().T, self._model.bias_O[None]])
        for start, noise_DIO in self._noise(len(weight_IO) - 1, "shared"):
            for part in row_chunks(len(noise_DIO), self._rows):
                weight_DIO = weight_IO + self._scale * F.pad(noise_DIO[part].double(), (0, 0, 0, 1))
                if self._convolution:
                    weight_DIO = _draws_innermost(weight_DIO)
                for n in range(len(ids)):
                    yield n, start + part.start, self._product(x_NPI[n], weight_DIO)

    def _noise(self, inner: int, *purpose: str | int) -> Iterator[tuple[int, Tensor]]:
        """Standard normal numbers (D, inner, O) in blocks of draws whose size depends only on the size of the layer.

        Float32 is exact enough for noise, and several times faster to draw than float64.
        """
        units = len(self._model.weight_OI)
        block = max(1, _NOISE_NUMBERS // (inner * units))
        for start in range(0, self._draws, block):
            generator = torch_generator(self._seed, "perturbation", self._model.layer_name, *purpose, start)
            noise_DRO = torch.randn((min(block, self._draws - start), inner, units), generator=generator)
            yield start, noise_DRO.to(self._model.device)

    def _product(self, a_PR: Tensor, b_DRO: Tensor) -> Tensor:
        """A B for each draw, (D, P, O)."""
        positions, inner = a_PR.shape
        draws, _, units = b_DRO.shape
        if positions == inner == 1:
            return a_PR * b_DRO
        if not self._convolution:
            return torch.bmm(a_PR.expand(draws, -1, -1), b_DRO)
        # one product for all draws, which stay innermost in memory, as the next convolution needs them
        b_ROD = _draws_innermost(b_DRO).permute(1, 2, 0)
        return (a_PR @ b_ROD.flatten(1)).view(positions, units, draws).permute(2, 0, 1)


def _draws_innermost(b_DRO: Tensor) -> Tensor:
    """The same tensor with its first axis innermost in memory; not copied if it already is."""
    return b_DRO.permute(1, 2, 0).contiguous().permute(2, 0, 1)


def _repeated(cut: Cut, row: int, count: int) -> Cut:
    """One sample repeated `count` times, in all that the tail reads, without a copy."""
    return cut.map(lambda x: _repeat(x, row, count))


def _repeat(x: Tensor, row: int, count: int) -> Tensor:
    return x[row : row + 1].expand(count, *x.shape[1:])


def _factor(x_NPI: Tensor) -> Tensor:
    """A (N, P, R) such that A Aᵀ = X Xᵀ, for P <= I or P = 1."""
    if x_NPI.shape[1] == 1:
        norm_NPR: Tensor = torch.linalg.vector_norm(x_NPI, dim=2, keepdim=True)
        return norm_NPR
    triangle_NRP: Tensor = torch.linalg.qr(x_NPI.mT, mode="r").R
    return triangle_NRP.mT


class _NewBytes(TorchFunctionMode):
    """Count the bytes of every operation's result that is not a view of an argument."""

    def __init__(self) -> None:
        super().__init__()
        self.total: int = 0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if isinstance(out, Tensor):
            storage = out.untyped_storage()
            if all(a.untyped_storage().data_ptr() != storage.data_ptr() for a in args if isinstance(a, Tensor)):
                self.total += storage.nbytes()
        return out


def _rows_within(model: CutModel, task: Task, cut: Cut, target: Tensors, memory_mb: int) -> int:
    """How many rows of the tail fit into `memory_mb` MiB (at least 1), measured on the operations of one row."""
    z_NPO = model.layer_output(cut)
    with _NewBytes() as count:
        task.loss(model.tail(z_NPO, cut)[1], target)
    per_row: int = count.total + 3 * _DOUBLE * z_NPO.numel()
    return max(1, (memory_mb << 20) // per_row)


def layer_scale(model: CutModel, noise: str, scale: float) -> float:
    """The standard deviation of the perturbation: `scale`, or `scale` times the layer's rms weight."""
    rms = float(model.weight_OI.double().square().mean().sqrt())
    return scale if noise == "absolute" else scale * rms
