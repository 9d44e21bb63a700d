"""`pca`: the first k principal coefficients of raw Δ, divided by one common scale.

Distances between Δ are kept, so ρ and unit norm play no part.

Dims: N samples, O out_features, I in_features, d entries of a Δ, k components.
"""

from collections.abc import Iterable, Iterator
from itertools import chain
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ocd_core.codes.params import RepresentationParams
from ocd_core.codes.principal import Principal, principal_components
from ocd_core.codes.representations.base import NO_DELTAS, Deltas, Representation, chunks_of
from ocd_core.errors import UserError

if TYPE_CHECKING:
    from ocd_core.network.covariances import LayerCovariances


class Pca(Representation):
    """k principal coefficients of Δ about the training mean, divided by their common root mean square.

    With `weighted`, components are those of G^½ Δ A^½ (`ocd_core.network.covariances`), so that they go to what changes
    the loss, and distances between codes are those between weighted Δ. Both maps stay linear: `dual` encodes, `basis`
    decodes.
    """

    name = "pca"
    uses_scale = False
    mean: Tensor
    basis: Tensor
    scale: Tensor
    explained: Tensor

    def __init__(self, out_features: int, in_features: int, components: int, weighted: bool = False) -> None:
        super().__init__(out_features, in_features, (components,))
        entries = out_features * in_features
        self.weighted = weighted
        self.register_buffer("mean", torch.zeros(entries))
        self.register_buffer("basis", torch.zeros(components, entries))  # orthonormal rows, unless weighted
        self.register_buffer("scale", torch.ones(()))
        self.register_buffer("explained", torch.zeros(components))  # share of the variance of each component
        if weighted:
            self.register_buffer("dual_basis", torch.zeros(components, entries))

    @property
    def dual(self) -> Tensor:
        """The rows whose products with a centred Δ are its coefficients, (k, d)."""
        found = self.dual_basis if self.weighted else self.basis
        assert isinstance(found, Tensor)
        return found

    @classmethod
    def fit(
        cls, deltas_NOI: Deltas, layer_input_NI: Tensor | None, params: RepresentationParams, unit_variance: bool
    ) -> "Pca":
        """See `principal_components`."""
        (outs, ins), chunks = _with_shape(chunks_of(deltas_NOI))
        found = _principal(chunks, params)
        self = cls(outs, ins, params.components)
        self.mean.copy_(found.mean_d)
        self.basis.copy_(found.basis_kd)
        self._keep_variances(found)
        return self

    @classmethod
    def fit_weighted(cls, deltas_NOI: Deltas, params: RepresentationParams, covariances: "LayerCovariances") -> "Pca":
        """The components of G^½ Δ A^½; decoding divides by the roots, which are damped, again."""
        left_OO, right_II, left_inverse_OO, right_inverse_II = covariances.roots()
        (outs, ins), chunks = _with_shape(chunks_of(deltas_NOI))
        found = _principal(((left_OO @ chunk.double() @ right_II).float() for chunk in chunks), params)
        self = cls(outs, ins, params.components, weighted=True)
        basis_kOI = found.basis_kd.view(-1, outs, ins)
        self.mean.copy_((left_inverse_OO @ found.mean_d.view(outs, ins) @ right_inverse_II).flatten())
        self.basis.copy_((left_inverse_OO @ basis_kOI @ right_inverse_II).flatten(1))
        self.dual.copy_((left_OO @ basis_kOI @ right_II).flatten(1))
        self._keep_variances(found)
        return self

    def _keep_variances(self, found: Principal) -> None:
        self.scale.copy_(found.scale)
        self.explained.copy_(found.squares_k / found.total)

    def encode(self, delta_NOI: Tensor, layer_input_NI: Tensor | None = None) -> Tensor:
        """The coefficients of Δ, (N, k)."""
        code: Tensor = (delta_NOI.flatten(1) - self.mean) @ self.dual.T / self.scale
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
            **({"weighted": True} if self.weighted else {}),
        }

    def summary(self) -> dict[str, float]:
        """Numbers for the metrics file; `explained_variance`: share of the (weighted) training Δ's variance kept."""
        return {**super().summary(), "explained_variance": float(self.explained.sum())}


def _with_shape(chunks: Iterator[Tensor]) -> tuple[torch.Size, Iterator[Tensor]]:
    """(O, I) and all of the chunks."""
    first = next(chunks, None)
    if first is None:
        raise UserError(NO_DELTAS)
    return first.shape[1:], chain([first], chunks)


def _principal(chunks: Iterable[Tensor], params: RepresentationParams) -> Principal:
    return principal_components(chunks, params.components, "representation pca", "representation.components")


REPRESENTATION = Pca
