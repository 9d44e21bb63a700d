"""`factored`: u / ‖u‖ of Δ = u ⊗ i_L.

It is exact for SGD on a linear layer that sees one position: every gradient is then an outer product with the same,
known i_L.

Dims: N samples, O out_features, I in_features.
"""

import torch
from torch import Tensor

from ocd_core.codes.params import RepresentationParams
from ocd_core.codes.representations.base import NO_DELTAS, Deltas, Directions, chunks_of, unit_rows
from ocd_core.errors import UserError

_RANK_ONE_TOLERANCE = 1e-3  # of ‖Δ‖; Δ in float32 stays below 1e-6, Adam or two positions exceed it by far


class Factored(Directions):
    """u / ‖u‖ of Δ = u ⊗ i_L: O numbers instead of O · I, without loss."""

    name = "factored"

    def __init__(self, out_features: int, in_features: int, unit_variance: bool) -> None:
        super().__init__(out_features, in_features, (out_features,), unit_variance)

    @classmethod
    def fit(
        cls, deltas_NOI: Deltas, layer_input_NI: Tensor | None, params: RepresentationParams, unit_variance: bool
    ) -> "Factored":
        """Check that every training Δ is an outer product with its i_L."""
        done, self = 0, None
        for chunk in (block for whole in chunks_of(deltas_NOI) for block in torch.split(whole, 1024)):
            count, outs, ins = chunk.shape
            if layer_input_NI is None or layer_input_NI.dim() != 2 or layer_input_NI.shape[1] != ins:
                shape = None if layer_input_NI is None else tuple(layer_input_NI.shape[1:])
                raise UserError(
                    f"representation factored is exact only for a linear layer that sees one position; this layer "
                    f"takes {ins} features, and its input has shape {shape} per sample. Use dense or pca"
                )
            i_NI = layer_input_NI[done : done + count].double()
            assert len(i_NI) == count
            delta = chunk.double()
            gap_N = (delta - _project(delta, i_NI)[:, :, None] * i_NI[:, None, :]).flatten(1).norm(dim=1)
            bad = (gap_N > _RANK_ONE_TOLERANCE * delta.flatten(1).norm(dim=1)).nonzero()
            if len(bad):
                raise UserError(
                    f"representation factored needs Δ = u ⊗ i_L, but that of training sample {done + int(bad[0])} is "
                    "not of that form: overfit.optimizer sgd on a linear layer that sees one position gives it. "
                    "Use dense or pca"
                )
            done += count
            self = cls(outs, ins, unit_variance)
        if self is None:
            raise UserError(NO_DELTAS)
        return self

    def encode(self, delta_NOI: Tensor, layer_input_NI: Tensor | None = None) -> Tensor:
        """The direction of u, (N, O)."""
        assert layer_input_NI is not None
        return unit_rows(_project(delta_NOI.double(), layer_input_NI.double())).mul_(self.length).float()

    def decode(self, code: Tensor, rho_N: Tensor | None, layer_input_NI: Tensor | None = None) -> Tensor:
        """ρ û ⊗ i_L / ‖i_L‖, (N, O, I)."""
        assert rho_N is not None
        assert layer_input_NI is not None
        u_NO = code * (rho_N.float() / self.length)[:, None]
        return u_NO[:, :, None] * unit_rows(layer_input_NI)[:, None, :]

    def move(self, code: Tensor, rho_N: Tensor | None, layer_input_NI: Tensor | None) -> Tensor:
        """Δ i_L = ρ û ‖i_L‖, (N, O), without forming Δ."""
        assert rho_N is not None
        assert layer_input_NI is not None
        length_N: Tensor = rho_N.float() * layer_input_NI.norm(dim=1) / self.length
        return code * length_N[:, None]


def _project(delta_NOI: Tensor, i_NI: Tensor) -> Tensor:
    """The u of the outer product u ⊗ i_L that is nearest to Δ, (N, O); 0 if i_L is 0."""
    square_N = (i_NI**2).sum(1)
    return (delta_NOI @ i_NI[:, :, None]).squeeze(2) / torch.where(square_N > 0, square_N, 1.0)[:, None]


REPRESENTATION = Factored
