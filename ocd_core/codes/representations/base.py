"""The space in which Δ is generated: an invertible map between weight changes and the codes that diffuse.

The d entries of a unit-norm code have variance 1/d, but diffusion expects 1: with `unit_variance`, codes are sqrt(d)
times as long.

Dims: N samples, O out_features, I in_features.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor, nn

from ocd_core.codes.params import RepresentationParams
from ocd_core.errors import UserError

if TYPE_CHECKING:
    from ocd_core.network.covariances import LayerCovariances

Deltas = Tensor | Iterable[Tensor]  # (N, O, I) at once, or in chunks of consecutive samples
NO_DELTAS = "there are no training Δ to fit a representation on (is every ρ = 0?)"


class Representation(nn.Module, ABC):
    """An invertible map Δ <-> code; its buffers hold what it learned from training Δ, `config` holds the rest."""

    name: ClassVar[str]  # in params
    uses_scale: ClassVar[bool]  # whether the code loses the norm of Δ, which ρ must then give

    def __init__(self, out_features: int, in_features: int, shape: tuple[int, ...]) -> None:
        super().__init__()
        self.out_features, self.in_features, self.shape = out_features, in_features, shape

    @classmethod
    @abstractmethod
    def fit(
        cls, deltas_NOI: Deltas, layer_input_NI: Tensor | None, params: RepresentationParams, unit_variance: bool
    ) -> "Representation":
        """Learn the map from training Δ only.

        layer_input_NI: i_L of the same samples, needed by `factored`. Samples with Δ = 0 are allowed.

        Raises:
            UserError: there are no Δ, or the representation does not fit them; the message says why.
        """

    @classmethod
    def fit_weighted(
        cls, deltas_NOI: Deltas, params: RepresentationParams, covariances: "LayerCovariances"
    ) -> "Representation":
        """Like `fit`, in the metric ‖G^½ Δ A^½‖ of a layer's covariances (`representation.metric: kfac`).

        Raises:
            UserError: as for `fit`; by default always.
        """
        raise UserError(f"representation {cls.name} has no metric; set representation.metric to euclidean")

    @abstractmethod
    def encode(self, delta_NOI: Tensor, layer_input_NI: Tensor | None = None) -> Tensor:
        """The code that the diffusion trains on, float32 (N, *shape).

        A Δ of norm 0 has no direction; if `uses_scale`, its code is 0 and the caller leaves it out of training.
        """

    @abstractmethod
    def decode(self, code: Tensor, rho_N: Tensor | None, layer_input_NI: Tensor | None = None) -> Tensor:
        """Δ of the codes, float32 (N, O, I); the inverse of `encode` for ρ = ‖Δ‖. rho_N: None unless `uses_scale`."""

    def normalise(self, code: Tensor) -> Tensor:
        """Bring drawn codes to the norm of encoded ones (does nothing if that norm is not fixed)."""
        return code

    def move(self, code: Tensor, rho_N: Tensor | None, layer_input_NI: Tensor | None) -> Tensor:
        """What moves the layer, float32: Δ (N, O, I), or Δ i_L (N, O), the change of the layer's output.

        The second form comes from a representation that can give it without forming Δ.

        Args:
            code, rho_N: as for `decode`.
            layer_input_NI: i_L, or None if the layer sees several positions.
        """
        return self.decode(code, rho_N, layer_input_NI)

    @abstractmethod
    def config(self) -> dict[str, Any]:
        """The constructor's arguments, plain values."""

    def summary(self) -> dict[str, float]:
        """Numbers for the metrics file."""
        return {"code_entries": float(torch.Size(self.shape).numel())}


class Directions(Representation):
    """Codes of one fixed norm; they need ρ."""

    uses_scale = True

    def __init__(self, out_features: int, in_features: int, shape: tuple[int, ...], unit_variance: bool) -> None:
        super().__init__(out_features, in_features, shape)
        self.unit_variance = unit_variance
        self.length = torch.Size(shape).numel() ** 0.5 if unit_variance else 1.0

    def config(self) -> dict[str, Any]:
        """The constructor's arguments, plain values."""
        return {
            "out_features": self.out_features,
            "in_features": self.in_features,
            "unit_variance": self.unit_variance,
        }

    def normalise(self, code: Tensor) -> Tensor:
        """The same directions with the norm of encoded Δ."""
        return unit_rows(code) * self.length


def unit_rows(x: Tensor) -> Tensor:
    """Each sample divided by its norm, (N, ...); a sample of norm 0 stays 0."""
    norm = x.flatten(1).norm(dim=1)
    return x / torch.where(norm > 0, norm, 1.0).view(-1, *[1] * (x.dim() - 1))


def chunks_of(deltas: Deltas) -> Iterator[Tensor]:
    """The chunks that are not empty, each (n, O, I)."""
    for chunk in [deltas] if isinstance(deltas, Tensor) else deltas:
        assert chunk.dim() == 3
        if len(chunk):
            yield chunk
