"""`dense`: the matrix Δ / ‖Δ‖, as in the paper (Alg. 1, line 6).

Dims: N samples, O out_features, I in_features.
"""

from torch import Tensor

from ocd_core.codes.params import RepresentationParams
from ocd_core.codes.representations.base import NO_DELTAS, Deltas, Directions, chunks_of, unit_rows
from ocd_core.errors import UserError


class Dense(Directions):
    """Δ / ‖Δ‖ as a matrix (Alg. 1, line 6)."""

    name = "dense"

    def __init__(self, out_features: int, in_features: int, unit_variance: bool) -> None:
        super().__init__(out_features, in_features, (out_features, in_features), unit_variance)

    @classmethod
    def fit(
        cls, deltas_NOI: Deltas, layer_input_NI: Tensor | None, params: RepresentationParams, unit_variance: bool
    ) -> "Dense":
        """Only the shape is learned, so only the first chunk is read."""
        for chunk in chunks_of(deltas_NOI):
            return cls(chunk.shape[1], chunk.shape[2], unit_variance)
        raise UserError(NO_DELTAS)

    def encode(self, delta_NOI: Tensor, layer_input_NI: Tensor | None = None) -> Tensor:
        """Δ / ‖Δ‖, (N, O, I)."""
        return unit_rows(delta_NOI.double()).mul_(self.length).float()

    def decode(self, code: Tensor, rho_N: Tensor | None, layer_input_NI: Tensor | None = None) -> Tensor:
        """ρ times the code, (N, O, I)."""
        assert rho_N is not None
        return code * (rho_N.float() / self.length)[:, None, None]


REPRESENTATION = Dense
