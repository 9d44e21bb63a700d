"""Apply a batch of per-sample weights to a batch of inputs, and keep the base network's values for them.

Dims: N samples, P positions, O out_features, I in_features, K draws.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from ocd_core.network.activations import count_values
from ocd_core.network.blocks import outputs_in_blocks
from ocd_core.network.cut import Cut, CutModel
from ocd_core.samples import Batch, Condition, Tensors, map_tensors
from ocd_core.tasks.base import Task

Move = Tensor  # what moves each sample's layer: Δ (N, O, I), or the change Δ i_L of its output (N, O)
_DOUBLE = 8
# Float32 activations of one batch on a CPU. Larger batches are no faster (their activations leave the cache) or slower
_CPU_BATCH_BYTES = 2**24
_ALIVE = 4  # a deep network needs few of its activations at once: a block's input, its branches, their concatenation


@dataclass(frozen=True)
class BasePass:
    """The base network on N samples: the cut, I(x) (Eq. 4, float32) and f_θ(x) (in the tail's precision).

    z_NPO: the layer's output without the bias, in the tail's precision, or None if the layer sees several positions,
    where it would be large and of no use: the moved weights are then multiplied as a whole.
    """

    cut: Cut
    condition: Condition
    output: Tensors
    z_NPO: Tensor | None


@torch.no_grad()
def base_pass(task: Task, model: CutModel, batch: Batch) -> BasePass:
    """Run the base network once and keep what later steps need."""
    cut = model.prefix(batch.inputs)
    return pass_from_cut(task, model, batch, cut)


@torch.no_grad()
def pass_from_cut(task: Task, model: CutModel, batch: Batch, cut: Cut) -> BasePass:
    """Like `base_pass`, from a prefix that has already run."""
    z_NPO = model.layer_output(cut)
    activation, output, observed = model.observe(z_NPO, cut)
    values = activation.float(), map_tensors(Tensor.float, output)
    if observed is None:
        condition = task.condition(batch, cut.layer_input, *values, model.network)
    else:
        condition = task.condition_observed(batch, cut.layer_input, *values, tuple(x.float() for x in observed))
    return BasePass(cut, condition, output, z_NPO if z_NPO.shape[1] == 1 else None)


def outputs_with_move(model: CutModel, cut: Cut, move: Move, z_NPO: Tensor | None = None) -> Tensors:
    """f(x; θ + Δ) from either form of Δ, (N, ...), in the tail's precision; differentiable in the move.

    The change of the layer's output (one position) needs no matrix.

    Args:
        z_NPO: the layer's output without the move, if it is known.
    """
    if move.dim() == 2:
        z_NPO = model.layer_output(cut) if z_NPO is None else z_NPO
        return model.tail(z_NPO + move.to(model.dtype)[:, None, :], cut)[1]
    return model.forward(cut, move)[1] if torch.is_grad_enabled() else outputs_in_blocks(model, cut, move)


def row_chunks(rows: int, size: int) -> Iterator[slice]:
    """0 .. rows in slices of at most `size`."""
    for start in range(0, rows, size):
        yield slice(start, min(start + size, rows))


@dataclass(frozen=True)
class FittingRows:
    """How many samples fit into memory, and how many to take at once: on a CPU, what the cache holds is enough."""

    in_memory: int
    rows: int


def rows_within(model: CutModel, example: Batch, memory_mb: float, matrices: int) -> int:
    """How many samples to take at once; see `fitting_rows`."""
    return fitting_rows(model, example, memory_mb, matrices).rows


@torch.no_grad()
def fitting_rows(model: CutModel, example: Batch, memory_mb: float, matrices: int) -> FittingRows:
    """How many samples fit a working set of about `memory_mb` MiB (at least 1).

    On a CPU the network's activations should also roughly fit the cache: larger batches gain nothing there.

    Args:
        example: a batch of one sample.
        matrices: how many (O, I) float64 matrices are alive per sample.
    """
    example = example.to(model.device)
    values, largest = count_values(model.network, example.inputs)
    cut = model.prefix(example.inputs)
    out_features, in_features = model.weight_OI.shape
    # hooks do not see functional activations, and a backward pass keeps its gradients: hence 3
    per_sample = _DOUBLE * (3 * values + 2 * cut.x_NPI.numel() + matrices * out_features * in_features)
    in_memory = max(1, int(memory_mb * 2**20) // per_sample)
    if model.device.type != "cpu":
        return FittingRows(in_memory, in_memory)
    in_cache = max(1, _CPU_BATCH_BYTES // (4 * min(values, _ALIVE * largest)))
    return FittingRows(in_memory, min(in_memory, in_cache))
