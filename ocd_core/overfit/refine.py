"""Refine Δ after the gradient steps: damped Gauss–Newton steps on each sample's own loss, in a few coordinates.

The coordinates are the principal components of the Δ of training samples, the same for all splits, so that what is left
of Δ is what the representation `pca` keeps. A step goes from c to c − (JᵀHJ + μ)⁻¹ g (`ocd_core.network.gauss_newton`),
with one damping μ for all samples: a sample whose loss is flat moves little, as with gradient steps. A step that does
not lower its sample's loss is halved, and in the end not taken.

If each step of overfitting draws its own inputs, ℓ and g are means over the inputs of all steps, and JᵀHJ over those of
the first few, because it costs the most.

Dims: N rows, R refining steps, k coordinates, O out_features, I in_features, d = O · I.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ocd_core.codes.principal import principal_components
from ocd_core.errors import UserError
from ocd_core.network.cut import CutModel
from ocd_core.network.gauss_newton import Moves, Quadratic, losses, quadratic, slopes
from ocd_core.overfit.params import RefineParams
from ocd_core.overfit.steps import StepInputs, StepPart, finite
from ocd_core.samples import SampleLoss
from ocd_core.weights import read_tensors, save_tensors

_HALVINGS = 4


@dataclass(frozen=True)
class Coordinates:
    """Δ = mean + c · basis, with orthonormal rows of the basis; float64 (d,) and (k, d)."""

    mean_d: Tensor
    basis_kd: Tensor

    def encode(self, delta_NOI: Tensor) -> Tensor:
        """The coordinates c of the nearest Δ that has some, float64 (N, k)."""
        centred_Nd = delta_NOI.flatten(1).double() - self.mean_d.to(delta_NOI.device)
        return centred_Nd @ self.basis_kd.to(delta_NOI.device).T

    def moves(self, model: CutModel) -> Moves:
        """The map c -> Δ (N, O, I), in the precision and on the device of the network's tail."""
        mean_d, basis_kd = (x.to(model.device, model.dtype) for x in (self.mean_d, self.basis_kd))
        return lambda code_Nk: (mean_d + code_Nk @ basis_kd).view(-1, *model.weight_OI.shape)


@dataclass(frozen=True)
class Refinement:
    """What all rows of a run share: the coordinates and the damping μ."""

    coordinates: Coordinates
    damping: float

    def save(self, path: Path) -> None:
        """Write what `load` reads."""
        values = {"mean": self.coordinates.mean_d, "basis": self.coordinates.basis_kd}
        save_tensors({**values, "damping": torch.tensor(self.damping, dtype=torch.float64)}, path)

    @classmethod
    def load(cls, path: Path) -> "Refinement":
        """What `save` wrote, with the same bits.

        Raises:
            UserError: the file is missing or damaged.
        """
        values = read_tensors(path)
        return cls(Coordinates(values["mean"], values["basis"]), float(values["damping"]))


@dataclass(frozen=True)
class Refined:
    """Δ (N, O, I) in the tail's precision, and the loss after each step (N, R)."""

    delta_NOI: Tensor
    loss_NR: Tensor


@dataclass(frozen=True)
class RowLosses:
    """The losses of N rows as functions of their coordinates.

    inputs: of the steps of overfitting. count: how many steps' inputs differ. curved: how many of them give JᵀHJ.
    """

    model: CutModel
    inputs: StepInputs
    loss: SampleLoss
    moves: Moves
    count: int
    curved: int

    def losses(self, code_Nk: Tensor) -> Tensor:
        """ℓ, (N,); not finite where the coordinates are too large."""
        found = [
            share * losses(self.model, part.cut, part.target, self.loss, code_Nk, self.moves)
            for part, share in self._parts(0, self.count)
        ]
        return torch.stack(found).sum(0)

    def quadratic(self, code_Nk: Tensor) -> Quadratic:
        """ℓ, g and JᵀHJ; the last two are 0 where they are not finite, so that there is no step.

        Raises:
            UserError: a loss is not finite.
        """
        near: list[tuple[Tensor, Tensor]] = []
        curvature_Nkk = code_Nk.new_zeros(*code_Nk.shape, code_Nk.shape[1])
        for part, share in self._parts(0, self.curved):
            found = quadratic(self.model, part.cut, part.target, self.loss, code_Nk, self.moves)
            curvature_Nkk += share * self.count / self.curved * found.curvature_Nkk
            near.append((share * found.loss_N, share * found.slope_Nk))
        for part, share in self._parts(self.curved, self.count):
            loss_N, slope_Nk = slopes(self.model, part.cut, part.target, self.loss, code_Nk, self.moves)
            near.append((share * loss_N, share * slope_Nk))
        loss_N, slope_Nk = (torch.stack(list(x)).sum(0) for x in zip(*near, strict=True))
        finite(
            loss_N, "where overfit.refine begins", "raise overfit.refine.components, or set overfit.refine.steps to 0"
        )
        known_N = torch.isfinite(slope_Nk).all(1) & torch.isfinite(curvature_Nkk).flatten(1).all(1)
        slope_Nk = torch.where(known_N[:, None], slope_Nk, 0)
        return Quadratic(loss_N, slope_Nk, torch.where(known_N[:, None, None], curvature_Nkk, 0))

    def _parts(self, first: int, end: int) -> Iterator[tuple[StepPart, float]]:
        """The parts of some steps' inputs, each with its share of the loss on the inputs of all steps."""
        for step in range(first, end):
            yield from ((part, part.weight / self.count) for part in self.inputs(step))


def refine(rows: RowLosses, delta_NOI: Tensor, refinement: Refinement, steps: int) -> Refined:
    """Take `steps` damped Gauss–Newton steps from the coordinates of the given Δ; the rest of Δ is left out.

    Raises:
        UserError: a loss is not finite before the first step.
    """
    code_Nk = refinement.coordinates.encode(delta_NOI.to(rows.model.device)).to(rows.model.dtype)
    after = []
    for _ in range(steps):
        found = rows.quadratic(code_Nk)
        code_Nk, loss_N = _descend(code_Nk, found.step(refinement.damping), found.loss_N, rows.losses)
        after.append(loss_N)
    return Refined(rows.moves(code_Nk), torch.stack(after, 1))


def _descend(
    code_Nk: Tensor, step_Nk: Tensor, before_N: Tensor, losses_of: Callable[[Tensor], Tensor]
) -> tuple[Tensor, Tensor]:
    """Where the step, halved as often as needed, lowers each row's loss, and that loss; else where it was."""
    share_N1 = torch.ones_like(before_N)[:, None]
    for left in range(_HALVINGS, -1, -1):
        reached_Nk = code_Nk + share_N1 * step_Nk
        loss_N = losses_of(reached_Nk)
        worse_N = ~(torch.isfinite(loss_N) & (loss_N <= before_N))
        if left == 0 or not worse_N.any():
            break
        share_N1 = torch.where(worse_N[:, None], share_N1 / 2, share_N1)
    return torch.where(worse_N[:, None], code_Nk, reached_Nk), torch.where(worse_N, before_N, loss_N)


def fit_coordinates(delta_NOI: Tensor, params: RefineParams) -> Coordinates:
    """The principal components of training Δ.

    Raises:
        UserError: the Δ do not span so many directions.
    """
    found = principal_components([delta_NOI], params.components, "overfit.refine", "overfit.refine.components")
    return Coordinates(found.mean_d, found.basis_kd.contiguous())


def mean_curvature(curvature_Nkk: Tensor) -> float:
    """The mean curvature along a coordinate, over samples and coordinates; `RefineParams.damping` is a share of it.

    Raises:
        UserError: there is none, so that no step could be told from another.
    """
    found = float(torch.linalg.eigvalsh(curvature_Nkk).clamp_min(0).double().mean())
    if found == 0:
        raise UserError(
            "overfit.refine: the loss is nowhere curved in the output (as an absolute error is not), so there is no "
            "Gauss-Newton step; set overfit.refine.steps to 0, or take another loss"
        )
    return found
