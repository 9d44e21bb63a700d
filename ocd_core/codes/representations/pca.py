"""`pca`: the first k principal coefficients of raw Δ, divided by one common scale.

Distances between Δ are kept, so ρ and unit norm play no part.

Dims: N samples, O out_features, I in_features, d entries of a Δ, k components.
"""

from typing import Any

import torch
from torch import Tensor

from ocd_core.codes.params import RepresentationParams
from ocd_core.codes.principal import principal_components
from ocd_core.codes.representations.base import NO_DELTAS, Deltas, Representation, chunks_of
from ocd_core.errors import UserError


class Pca(Representation):
    """k principal coefficients of Δ about the training mean, divided by their common root mean square."""

    name = "pca"
    uses_scale = False
    mean: Tensor
    basis: Tensor
    scale: Tensor
    explained: Tensor

    def __init__(self, out_features: int, in_features: int, components: int) -> None:
        super().__init__(out_features, in_features, (components,))
        self.register_buffer("mean", torch.zeros(out_features * in_features))
        self.register_buffer("basis", torch.zeros(components, out_features * in_features))  # orthonormal rows
        self.register_buffer("scale", torch.ones(()))
        self.register_buffer("explained", torch.zeros(components))  # share of the variance of each component

    @classmethod
    def fit(
        cls, deltas_NOI: Deltas, layer_input_NI: Tensor | None, params: RepresentationParams, unit_variance: bool
    ) -> "Pca":
        """See `principal_components`."""
        chunks = list(chunks_of(deltas_NOI))
        if not chunks:
            raise UserError(NO_DELTAS)
        outs, ins = chunks[0].shape[1:]
        found = principal_components(chunks, params.components, "representation pca", "representation.components")
        self = cls(outs, ins, params.components)
        self.mean.copy_(found.mean_d)
        self.basis.copy_(found.basis_kd)
        self.scale.copy_(found.scale)
        self.explained.copy_(found.squares_k / found.total)
        return self

    def encode(self, delta_NOI: Tensor, layer_input_NI: Tensor | None = None) -> Tensor:
        """The coefficients of Δ, (N, k)."""
        code: Tensor = (delta_NOI.flatten(1) - self.mean) @ self.basis.T / self.scale
        return code

    def decode(self, code: Tensor, rho_N: Tensor | None, layer_input_NI: Tensor | None = None) -> Tensor:
        """The matrix of these coefficients, (N, O, I); what lies outside the components is lost."""
        delta_Nd: Tensor = self.mean + (code * self.scale) @ self.basis
        return delta_Nd.view(-1, self.out_features, self.in_features)

    def config(self) -> dict[str, Any]:
        """The constructor's arguments, plain values."""
        return {
            "out_features": self.out_features,
            "in_features": self.in_features,
            "components": self.shape[0],
        }

    def summary(self) -> dict[str, float]:
        """Numbers for the metrics file; `explained_variance`: share of the training Δ's variance that is kept."""
        return {**super().summary(), "explained_variance": float(self.explained.sum())}


REPRESENTATION = Pca
