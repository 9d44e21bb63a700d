"""`pca`: the first k principal coefficients of raw Δ, divided by one common scale.

Distances between Δ are kept, so ρ and unit norm play no part.

Dims: N samples, O out_features, I in_features, d entries of a Δ, k components.
"""

from typing import Any

import torch
from torch import Tensor

from ocd_core.codes.params import RepresentationParams
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
        """Exact eigenvectors in float64, from the smaller of the N×N and the d×d matrix of products."""
        chunks = list(chunks_of(deltas_NOI))
        if not chunks:
            raise UserError(NO_DELTAS)
        outs, ins = chunks[0].shape[1:]
        x_Nd = (torch.cat(chunks) if len(chunks) > 1 else chunks[0]).flatten(1)
        count, entries = x_Nd.shape
        k = params.components
        if k > min(count - 1, entries):
            raise UserError(
                f"representation pca: {count} training Δ of {entries} entries have at most "
                f"{min(count - 1, entries)} components; lower representation.components from {k}"
            )
        mean_d = x_Nd.mean(0, dtype=torch.float64)
        values, vectors = _principal(x_Nd, mean_d, k)
        total = values.sum()
        values = values[-k:].flip(0)
        if values[-1] <= 1e-10 * total:
            rank = int((values > 1e-10 * total).sum())
            raise UserError(
                f"representation pca: the training Δ span only {rank} directions; lower representation.components "
                f"from {k}"
            )
        largest = vectors.abs().argmax(0, keepdim=True)
        vectors = vectors * vectors.gather(0, largest).sign()  # the sign of an eigenvector is arbitrary; fix it
        self = cls(outs, ins, k)
        self.mean.copy_(mean_d)
        self.basis.copy_(vectors.T)
        self.scale.copy_((values.mean() / count).sqrt())
        self.explained.copy_(values / total)
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


def _principal(x_Nd: Tensor, mean_d: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """All eigenvalues, ascending, and the first k principal directions (d, k), float64."""
    count, entries = x_Nd.shape
    if count <= entries:
        centred = x_Nd.double() - mean_d
        values, vectors = torch.linalg.eigh(centred @ centred.T)
        vectors = centred.T @ vectors[:, -k:].flip(1)
        return values, vectors / vectors.norm(dim=0).clamp_min(torch.finfo(torch.float64).tiny)
    products = torch.zeros(entries, entries, dtype=torch.float64)
    for block in torch.split(x_Nd, 2048):
        centred = block.double() - mean_d
        products.addmm_(centred.T, centred)
    values, vectors = torch.linalg.eigh(products)
    return values, vectors[:, -k:].flip(1)


REPRESENTATION = Pca
