"""The loss of each sample as a quadratic function of the coordinates of its Δ, by Gauss–Newton.

J is the derivative of the network's output by the coordinates, H the Hessian of the loss by the output: at c + d the
loss is about ℓ + gᵀd + dᵀJᵀHJd / 2. H is that of the task's own loss, whatever it is: diag(p) − ppᵀ for the cross
entropy, 2/n for the mean of n squares. It is positive for losses that are convex in the output; for others, directions
of negative curvature of JᵀHJ count as flat.

Dims: N samples, k coordinates, n values of an output.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ocd_core.network.blocks import divide, independent
from ocd_core.network.cut import Cut, CutModel
from ocd_core.network.moves import Move, outputs_with_move
from ocd_core.samples import SampleLoss, Tensors, as_tuple, concatenate, flat

_BY_DELTA_BYTES = 2**24  # of the derivatives by Δ that are in memory at once

Moves = Callable[[Tensor], Move]  # coordinates (N, k) -> Δ, differentiable


@dataclass(frozen=True)
class Quadratic:
    """ℓ (N,), g (N, k) and JᵀHJ (N, k, k) of each sample, in the precision of the network's tail."""

    loss_N: Tensor
    slope_Nk: Tensor
    curvature_Nkk: Tensor

    def step(self, damping: float) -> Tensor:
        """The d that minimises the quadratic plus `damping` ‖d‖² / 2, (N, k); negative curvature counts as none."""
        values_Nk, vectors_Nkk = torch.linalg.eigh(self.curvature_Nkk)
        along_Nk1 = vectors_Nkk.transpose(1, 2) @ self.slope_Nk[:, :, None]
        step_Nk: Tensor = -(vectors_Nkk @ (along_Nk1 / (values_Nk.clamp_min(0) + damping)[:, :, None]))[:, :, 0]
        return step_Nk


def positive(curvature_Nkk: Tensor) -> Tensor:
    """The curvatures with negative eigenvalues set to 0."""
    values_Nk, vectors_Nkk = torch.linalg.eigh(curvature_Nkk)
    found_Nkk: Tensor = (vectors_Nkk * values_Nk.clamp_min(0)[:, None, :]) @ vectors_Nkk.transpose(1, 2)
    return found_Nkk


def losses(model: CutModel, cut: Cut, target: Tensors, loss: SampleLoss, code_Nk: Tensor, moves: Moves) -> Tensor:
    """ℓ of each sample, (N,)."""
    with torch.no_grad():
        return loss(outputs_with_move(model, cut, moves(code_Nk)), target)


def slopes(
    model: CutModel, cut: Cut, target: Tensors, loss: SampleLoss, code_Nk: Tensor, moves: Moves
) -> tuple[Tensor, Tensor]:
    """ℓ (N,) and g (N, k)."""
    code_Nk = code_Nk.detach().requires_grad_(True)
    with torch.enable_grad():
        loss_N = loss(outputs_with_move(model, cut, moves(code_Nk)), target)
        (slope_Nk,) = torch.autograd.grad(loss_N.sum(), code_Nk)
    return loss_N.detach(), slope_Nk


def quadratic(model: CutModel, cut: Cut, target: Tensors, loss: SampleLoss, code_Nk: Tensor, moves: Moves) -> Quadratic:
    """The quadratic at the given coordinates.

    The tail runs forward and backward once; J takes as many further passes as the smaller of k and n, or as an element
    has values if these are fewer and a sample's elements are independent (`ocd_core.network.blocks`). Besides their
    graph, J and HJ are in memory: 2 N k n numbers.

    Args:
        model, cut, target: the base network, and N samples cut at the layer.
        loss: of each sample, twice differentiable in the output.
        code_Nk: in the tail's precision.
        moves: Δ of coordinates.
    """
    code_Nk = code_Nk.detach().requires_grad_(True)
    with torch.enable_grad():
        move = moves(code_Nk)
        if move.dim() == 3 and independent(model, cut, move.detach()):
            output, j_Nkn = _by_elements(model, cut, move, code_Nk)
        else:
            output = outputs_with_move(model, cut, move)
            j_Nkn = _jacobian(as_tuple(output), code_Nk)
        ends = tuple(part.detach().requires_grad_(True) for part in as_tuple(output))
        loss_N = loss(ends[0] if isinstance(output, Tensor) else ends, target)
        by_output = torch.autograd.grad(loss_N.sum(), ends, create_graph=True, materialize_grads=True)
        hj_Nkn = _hessian_times(j_Nkn, by_output, ends)
    slope_Nk = (j_Nkn @ flat(tuple(part.detach() for part in by_output))[:, :, None])[:, :, 0]
    curvature_Nkk = j_Nkn @ hj_Nkn.transpose(1, 2)
    return Quadratic(loss_N.detach(), slope_Nk, (curvature_Nkk + curvature_Nkk.transpose(1, 2)) / 2)


def _jacobian(outputs: tuple[Tensor, ...], code_Nk: Tensor) -> Tensor:
    """J, (N, k, n); samples do not depend on each other, so one pass serves all of them."""
    values_Nn = flat(outputs)
    if values_Nn.shape[1] <= code_Nk.shape[1]:
        rows = [torch.autograd.grad(value_N.sum(), code_Nk, retain_graph=True)[0] for value_N in values_Nn.unbind(1)]
        return torch.stack(rows, 2)
    # Jᵀu is linear in u, so its derivative by u along a coordinate is a column of J
    u_Nn = torch.zeros_like(values_Nn, requires_grad=True)
    (pulled_Nk,) = torch.autograd.grad(values_Nn, code_Nk, u_Nn, create_graph=True)
    columns = [torch.autograd.grad(value_N.sum(), u_Nn, retain_graph=True)[0] for value_N in pulled_Nk.unbind(1)]
    return torch.stack(columns, 1)


def _by_elements(model: CutModel, cut: Cut, delta_NOI: Tensor, code_Nk: Tensor) -> tuple[Tensors, Tensor]:
    """The output and J, (N, k, n), if no element depends on another; block by block, which keeps memory small."""
    by_delta = model.dtype.itemsize * len(cut) * cut.layer_input.shape[1] * model.weight_OI.numel()
    count = min(math.ceil(by_delta / _BY_DELTA_BYTES), cut.layer_input.shape[1])
    found = [_of_block(model, block, delta_NOI, code_Nk) for block in divide(cut, count)]
    columns = as_tuple(concatenate([columns for _, columns in found]))
    return concatenate([output for output, _ in found], 1), torch.cat(columns).permute(1, 2, 0)


def _of_block(model: CutModel, cut: Cut, delta_NOI: Tensor, code_Nk: Tensor) -> tuple[Tensors, Tensors]:
    """The output of E elements of each sample, and for each of its parts the columns of J, (E · values, N, k).

    The derivative of a value by the layer's output takes one pass for all elements. From an element's share of it comes
    the derivative of its value by Δ, and from this one that by the coordinates.
    """
    z_NPO = model.layer_output(cut, delta_NOI.detach()).requires_grad_(True)
    output = model.tail(z_NPO, cut)[1]
    samples, elements = len(cut), cut.layer_input.shape[1]
    x_NEDI = cut.x_NPI.to(model.dtype).reshape(samples, elements, -1, cut.x_NPI.shape[2])

    def columns(part: Tensor) -> Tensor:
        found: list[Tensor] = []
        for value_NE in part.reshape(samples, elements, -1).unbind(2):
            (by_z_NPO,) = torch.autograd.grad(value_NE.sum(), z_NPO, retain_graph=True)
            by_delta_NEOI = by_z_NPO.reshape(samples, elements, -1, by_z_NPO.shape[2]).transpose(2, 3) @ x_NEDI
            found += torch.autograd.grad(
                delta_NOI, code_Nk, by_delta_NEOI.transpose(0, 1), retain_graph=True, is_grads_batched=True
            )
        return torch.stack(found, 1).flatten(0, 1)

    return output, tuple(map(columns, as_tuple(output)))


def _hessian_times(j_Nkn: Tensor, by_output: tuple[Tensor, ...], ends: tuple[Tensor, ...]) -> Tensor:
    """H J, (N, k, n); zero if the loss is linear in the output."""
    gradient_Nn = flat(by_output)
    if not gradient_Nn.requires_grad:
        return torch.zeros_like(j_Nkn)
    columns = [
        flat(torch.autograd.grad(gradient_Nn, ends, column_Nn, retain_graph=True, materialize_grads=True))
        for column_Nn in j_Nkn.unbind(1)
    ]
    return torch.stack(columns, 1)
