"""The space in which Δ is generated: small invertible maps between weight changes and the codes that diffuse.

- `dense`: the matrix Δ / ‖Δ‖, as in the paper (Alg. 1, line 6).
- `factored`: u / ‖u‖ where Δ = u ⊗ i_L. Exact for SGD on a linear layer that sees one position: every
  gradient is then an outer product with the same, known i_L.
- `pca`: the first k principal coefficients of raw Δ over one common scale. The metric of Δ is kept, so ρ and unit
  norm play no part.

Entries of a unit-norm code of d entries have variance 1/d where diffusion expects 1: with `unit_variance` codes are
sqrt(d) times as long.

Dims: N samples, O out_features, I in_features, d entries of a code, k components.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from ocd_core.codes.params import RepresentationParams
from ocd_core.errors import UserError

Deltas = Tensor | Iterable[Tensor]  # (N, O, I) at once, or in chunks of consecutive samples
_RANK_ONE_TOLERANCE = 1e-3  # of ‖Δ‖; Δ in float32 meets 1e-6, Adam or two positions miss it by far


class Representation(nn.Module, ABC):
    """An invertible map Δ <-> code; what it learned from training Δ is in its buffers, the rest in `config`."""

    name: ClassVar[str]
    uses_scale: ClassVar[bool]  # whether Δ comes back up to its norm only, which ρ must give

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
            UserError: no Δ, or the representation does not fit them; the message says why.
        """

    @abstractmethod
    def encode(self, delta_NOI: Tensor, layer_input_NI: Tensor | None = None) -> Tensor:
        """The code that the diffusion trains on, float32 (N, *shape).

        A Δ of norm 0 has no direction; its code is 0 where `uses_scale`, and the caller leaves it out of training.
        """

    @abstractmethod
    def decode(self, code: Tensor, rho_N: Tensor | None, layer_input_NI: Tensor | None = None) -> Tensor:
        """Δ of the codes, float32 (N, O, I); the inverse of `encode` for ρ = ‖Δ‖. rho_N: None unless `uses_scale`."""

    def normalise(self, code: Tensor) -> Tensor:
        """Bring drawn codes to the norm of encoded ones (nothing to do where that norm is free)."""
        return code

    def move(self, code: Tensor, rho_N: Tensor | None, layer_input_NI: Tensor | None) -> Tensor:
        """What moves the layer, float32: Δ (N, O, I), or Δ i_L (N, O), how Δ changes the layer's output.

        The second from a representation that has it without forming Δ.

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


class _Directions(Representation):
    """What `dense` and `factored` share: codes of one fixed norm, and ρ."""

    uses_scale = True

    def __init__(self, out_features: int, in_features: int, shape: tuple[int, ...], unit_variance: bool) -> None:
        super().__init__(out_features, in_features, shape)
        self.unit_variance = unit_variance
        self.length = torch.Size(shape).numel() ** 0.5 if unit_variance else 1.0

    def config(self) -> dict[str, Any]:
        """The constructor's arguments, plain values."""
        return {
            "out_features": self.out_features, "in_features": self.in_features, "unit_variance": self.unit_variance,
        }  # fmt: skip

    def normalise(self, code: Tensor) -> Tensor:
        """The same directions at the norm of encoded Δ."""
        return unit_rows(code) * self.length


class Dense(_Directions):
    """Δ / ‖Δ‖ as a matrix (Alg. 1, line 6)."""

    name = "dense"

    def __init__(self, out_features: int, in_features: int, unit_variance: bool) -> None:
        super().__init__(out_features, in_features, (out_features, in_features), unit_variance)

    @classmethod
    def fit(
        cls, deltas_NOI: Deltas, layer_input_NI: Tensor | None, params: RepresentationParams, unit_variance: bool
    ) -> "Dense":
        """Nothing is learned but the shape: only the first chunk is read."""
        for chunk in _chunks(deltas_NOI):
            return cls(chunk.shape[1], chunk.shape[2], unit_variance)
        raise UserError(_NO_DELTAS)

    def encode(self, delta_NOI: Tensor, layer_input_NI: Tensor | None = None) -> Tensor:
        """Δ / ‖Δ‖, (N, O, I)."""
        return unit_rows(delta_NOI.double()).mul_(self.length).float()

    def decode(self, code: Tensor, rho_N: Tensor | None, layer_input_NI: Tensor | None = None) -> Tensor:
        """ρ times the code, (N, O, I)."""
        assert rho_N is not None
        return code * (rho_N.float() / self.length)[:, None, None]


class Factored(_Directions):
    """u / ‖u‖ of Δ = u ⊗ i_L: O numbers instead of O · I, and nothing lost."""

    name = "factored"

    def __init__(self, out_features: int, in_features: int, unit_variance: bool) -> None:
        super().__init__(out_features, in_features, (out_features,), unit_variance)

    @classmethod
    def fit(
        cls, deltas_NOI: Deltas, layer_input_NI: Tensor | None, params: RepresentationParams, unit_variance: bool
    ) -> "Factored":
        """Also checks that every training Δ is an outer product with its i_L."""
        done, self = 0, None
        for chunk in (block for whole in _chunks(deltas_NOI) for block in torch.split(whole, 1024)):
            count, outs, ins = chunk.shape
            if layer_input_NI is None or layer_input_NI.dim() != 2 or layer_input_NI.shape[1] != ins:
                shape = None if layer_input_NI is None else tuple(layer_input_NI.shape[1:])
                raise UserError(
                    f"representation factored is exact only for a linear layer that sees one position; this layer "
                    f"takes {ins} features, its input has shape {shape} per sample. Use dense or pca"
                )
            i_NI = layer_input_NI[done : done + count].double()
            assert len(i_NI) == count
            delta = chunk.double()
            gap_N = (delta - _project(delta, i_NI)[:, :, None] * i_NI[:, None, :]).flatten(1).norm(dim=1)
            bad = (gap_N > _RANK_ONE_TOLERANCE * delta.flatten(1).norm(dim=1)).nonzero()
            if len(bad):
                raise UserError(
                    f"representation factored needs Δ = u ⊗ i_L, and that of training sample {done + int(bad[0])} is "
                    "not of that form: it holds for overfit.optimizer sgd on a linear layer that sees one position. "
                    "Use dense or pca"
                )
            done += count
            self = cls(outs, ins, unit_variance)
        if self is None:
            raise UserError(_NO_DELTAS)
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


class Pca(Representation):
    """k principal coefficients of Δ about the training mean, over their common root mean square."""

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
        chunks = list(_chunks(deltas_NOI))
        if not chunks:
            raise UserError(_NO_DELTAS)
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
        if count <= entries:
            centred = x_Nd.double() - mean_d
            values, vectors = torch.linalg.eigh(centred @ centred.T)
            vectors = centred.T @ vectors[:, -k:].flip(1)
            vectors = vectors / vectors.norm(dim=0).clamp_min(torch.finfo(torch.float64).tiny)
        else:
            products = torch.zeros(entries, entries, dtype=torch.float64)
            for block in torch.split(x_Nd, 2048):
                centred = block.double() - mean_d
                products.addmm_(centred.T, centred)
            values, vectors = torch.linalg.eigh(products)
            vectors = vectors[:, -k:].flip(1)
        total = values.sum()
        values = values[-k:].flip(0)
        if values[-1] <= 1e-10 * total:
            rank = int((values > 1e-10 * total).sum())
            raise UserError(
                f"representation pca: the training Δ span only {rank} directions; lower representation.components "
                f"from {k}"
            )
        largest = vectors.abs().argmax(0, keepdim=True)
        vectors = vectors * vectors.gather(0, largest).sign()  # eigenvectors have no sign of their own; fix one
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
        """The matrix of these coefficients, (N, O, I); what lies outside of the components is lost."""
        delta_Nd: Tensor = self.mean + (code * self.scale) @ self.basis
        return delta_Nd.view(-1, self.out_features, self.in_features)

    def config(self) -> dict[str, Any]:
        """The constructor's arguments, plain values."""
        return {
            "out_features": self.out_features, "in_features": self.in_features, "components": self.shape[0],
        }  # fmt: skip

    def summary(self) -> dict[str, float]:
        """Numbers for the metrics file; `explained_variance`: share of the training Δ's variance that is kept."""
        return {**super().summary(), "explained_variance": float(self.explained.sum())}


REPRESENTATIONS: dict[str, type[Representation]] = {c.name: c for c in (Dense, Factored, Pca)}
_NO_DELTAS = "there are no training Δ to fit a representation on (is every ρ = 0?)"


def fit_representation(
    params: RepresentationParams, deltas_NOI: Deltas, layer_input_NI: Tensor | None, unit_variance: bool
) -> Representation:
    """The representation that the params name, fitted on training Δ; see `Representation.fit`."""
    return REPRESENTATIONS[params.name].fit(deltas_NOI, layer_input_NI, params, unit_variance)


def unit_rows(x: Tensor) -> Tensor:
    """Each sample over its norm, (N, ...); a sample of norm 0 stays 0."""
    norm = x.flatten(1).norm(dim=1)
    return x / torch.where(norm > 0, norm, 1.0).view(-1, *[1] * (x.dim() - 1))


def _project(delta_NOI: Tensor, i_NI: Tensor) -> Tensor:
    """The u of the outer product u ⊗ i_L nearest to Δ, (N, O); 0 where i_L is 0."""
    square_N = (i_NI**2).sum(1)
    return (delta_NOI @ i_NI[:, :, None]).squeeze(2) / torch.where(square_N > 0, square_N, 1.0)[:, None]


def _chunks(deltas: Deltas) -> Iterator[Tensor]:
    for chunk in [deltas] if isinstance(deltas, Tensor) else deltas:
        assert chunk.dim() == 3
        if len(chunk):
            yield chunk
