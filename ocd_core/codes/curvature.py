"""The metric of each row's own loss in the coordinates of Δ, so that errors count by what they do to outputs.

Near a row's Δ the loss grows with an error e of its coordinates by about eᵀJᵀHJe / 2 (`ocd_core.network.gauss_newton`).

Dims: N rows, k coordinates, O out_features, I in_features.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from ocd_core.codes.representations.base import Representation
from ocd_core.errors import UserError
from ocd_core.network.cut import CutModel
from ocd_core.network.gauss_newton import positive, quadratic
from ocd_core.network.moves import Move, row_chunks, rows_within
from ocd_core.samples import Split, rows_at_once
from ocd_core.store import OverfitStore
from ocd_core.tasks.base import Task
from ocd_core.tasks.draws_inputs import parts_of_step, step_batch

Decode = Callable[[Tensor, Tensor | None], Move]  # coordinates (N, k) and i_L (N, I) or None -> Δ, differentiable

_FLOOR = 0.01  # of the mean curvature: an error that no output shows still counts a little
_MEMORY_MB = 256
_LARGEST = 2**28  # numbers of all matrices: a gigabyte


@dataclass(frozen=True)
class CodedRows:
    """All rows of a split's store, with their codes (N, k)."""

    split: Split
    store: OverfitStore
    code: Tensor

    def rows(self) -> tuple[Tensor, Tensor]:
        """Sample and replica of each row, int64."""
        return torch.from_numpy(self.store.read("sample_id")), torch.from_numpy(self.store.read("replica"))


def row_curvatures(
    task: Task, model: CutModel, split: Split, sample_id_N: Tensor, replica_N: Tensor, code_Nk: Tensor,
    decode: Decode, seed: int,
) -> Tensor:  # fmt: skip
    """JᵀHJ of each row at its own coordinates, without negative curvature, float32 (N, k, k) on the CPU.

    It is taken on the inputs of the row's first step of overfitting, in the precision of the model's tail.

    Args:
        split: the split of the rows. code_Nk: their coordinates. decode: on the model's device.

    Raises:
        UserError: the matrices would not fit the memory, or a curvature is not finite.
    """
    count, k = code_Nk.shape
    if count * k * k > _LARGEST:
        raise UserError(
            f"metric gauss_newton keeps a {k} x {k} matrix for each of {count} rows, more than a gigabyte; use fewer "
            "components or rows, or metric euclidean"
        )
    example = split.batch(sample_id_N[:1])
    size = rows_at_once(split, max(1, rows_within(model, example, _MEMORY_MB, matrices=4) // 4))
    found_Nkk = torch.empty(count, k, k)
    for chunk in row_chunks(count, size):
        batch = step_batch(task, split, sample_id_N[chunk], replica_N[chunk], 0, seed).to(model.device)
        code = code_Nk[chunk].to(model.device, model.dtype)
        total_Nkk = code.new_zeros(len(code), k, k)
        for part, share in parts_of_step(task, batch):
            cut = model.prefix(part.inputs)
            moves = lambda c, cut=cut: decode(c, cut.layer_input_NI)  # noqa: E731
            total_Nkk += share * quadratic(model, cut, part.target, task.loss, code, moves).curvature_Nkk
        known_N = torch.isfinite(total_Nkk).flatten(1).all(1)
        if not known_N.all():
            sample = int(sample_id_N[chunk][~known_N.cpu()][0])
            raise UserError(
                f"the curvature of the loss of sample {sample} at its Δ is not finite, so metric gauss_newton cannot "
                "weigh its errors; lower overfit.lr, or use metric euclidean"
            )
        found_Nkk[chunk] = positive(total_Nkk).float().cpu()
    return found_Nkk


def metrics_of_codes(
    task: Task, model: CutModel, representation: Representation, parts: Sequence[CodedRows], seed: int
) -> list[Tensor]:
    """The metrics (N, k, k) of the codes of each part, all in units of the first part's mean curvature.

    Raises:
        UserError: codes do not hold whole Δ, or the matrices would not fit the memory.
    """
    if representation.uses_scale:
        raise UserError(
            f"diffusion.metric gauss_newton needs whole Δ, but representation {representation.name} leaves their norm "
            "to the scale network; use representation pca, or diffusion.metric euclidean"
        )
    decode = partial(decoded, representation)
    found = [row_curvatures(task, model, p.split, *p.rows(), p.code, decode, seed) for p in parts]
    mean = mean_diagonal(found[0])
    return [as_metrics(curvature_Nkk, mean) for curvature_Nkk in found]


def decoded(representation: Representation, code_Nk: Tensor, layer_input_NI: Tensor | None) -> Move:
    """The Δ of whole codes; without its representation it is a `Decode`."""
    return representation.move(code_Nk, None, layer_input_NI)


def mean_diagonal(curvature_Nkk: Tensor) -> float:
    """The mean curvature along a coordinate, over rows and coordinates."""
    return float(curvature_Nkk.diagonal(dim1=1, dim2=2).double().mean())


def as_metrics(curvature_Nkk: Tensor, mean: float) -> Tensor:
    """The curvatures in units of `mean`, mixed with a hundredth of the identity: positive, and 1 on average.

    If `mean` is 0, no output shows anything, and all are the identity.
    """
    identity_kk = torch.eye(curvature_Nkk.shape[1], dtype=curvature_Nkk.dtype)
    if mean == 0:
        return identity_kk.expand_as(curvature_Nkk).contiguous()
    return curvature_Nkk * ((1 - _FLOOR) / mean) + _FLOOR * identity_kk
