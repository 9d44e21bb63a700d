"""Coordinates of Δ that a regression predicts: linear in Δ, magnitude included, so that no ρ is needed.

Dims: N samples, O out_features, I in_features, d coordinates.
"""

from typing import Literal

import torch
from torch import Tensor, nn

from ocd_core.codes.encode import fit_to_store, read_deltas
from ocd_core.codes.params import RepresentationParams
from ocd_core.codes.representations.base import Representation
from ocd_core.codes.representations.factored import Factored
from ocd_core.codes.representations.pca import Pca
from ocd_core.diffusion.params import DiffusionParams
from ocd_core.errors import UserError
from ocd_core.network.covariances import LayerCovariances
from ocd_core.network.moves import Move
from ocd_core.store import OverfitStore


class DeltaSpace(nn.Module):
    """The diffusion's representation with ρ inside the code: ρ û (`factored`), or coefficients (`pca`)."""

    def __init__(self, representation: Representation) -> None:
        super().__init__()
        assert isinstance(representation, Pca) or (
            isinstance(representation, Factored) and not representation.unit_variance
        )
        self.representation = representation

    @classmethod
    def fit(
        cls,
        train: OverfitStore,
        params: DiffusionParams,
        components: int,
        covariances: LayerCovariances | None = None,
    ) -> "DeltaSpace":
        """Fit on training Δ. PCA `components` replace any representation but `factored` and `pca`.

        A dense one has too many entries to regress, and one of a user's own need not be linear in Δ.

        covariances: see `fit_to_store`.

        Raises:
            UserError: the representation does not fit these Δ, or has too many components for them.
        """
        replaced = params.representation.name not in ("factored", "pca")
        metric: Literal["euclidean", "kfac"] = "euclidean" if covariances is None else "kfac"
        instead = RepresentationParams(name="pca", components=components, metric=metric)
        chosen = instead if replaced else params.representation
        try:
            changed = params.model_copy(update={"representation": chosen, "unit_variance": False})
            return cls(fit_to_store(train, changed, covariances))
        except UserError as error:
            raise UserError(f"controls.components: {error}" if replaced else str(error)) from error

    @property
    def size(self) -> int:
        """The number of coordinates, d."""
        return torch.Size(self.representation.shape).numel()

    def encode_store(self, store: OverfitStore) -> Tensor:
        """The coordinates of every row of a store, float32 (N, d)."""
        parts = []
        for _, delta_NOI, layer_input_NI in read_deltas(store):
            code_Nd = self.representation.encode(delta_NOI, layer_input_NI)
            if self.representation.uses_scale:
                code_Nd = code_Nd * delta_NOI.flatten(1).norm(dim=1, keepdim=True)
            parts.append(code_Nd)
        return torch.cat(parts)

    def move(self, code_Nd: Tensor, layer_input_NI: Tensor | None) -> Move:
        """Δ (N, O, I), or the change Δ i_L (N, O) if that is cheaper; differentiable in the code."""
        rho_N = torch.ones(len(code_Nd), device=code_Nd.device) if self.representation.uses_scale else None
        return self.representation.move(code_Nd, rho_N, layer_input_NI)
