"""Principal components of training Δ, which the representation `pca` and the refinement of Δ share.

Dims: N samples, O out_features, I in_features, d entries of a Δ, k components.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from ocd_core.errors import UserError

_ROUNDING = 1e-10  # a share of the variance below which a direction is rounding


@dataclass(frozen=True)
class Principal:
    """The k directions of largest variance, float64.

    mean_d: of the N training Δ. basis_kd: orthonormal rows. squares_k: the sum of squares of the centred Δ along each,
    largest first. total: the same along all directions.
    """

    count: int
    mean_d: Tensor
    basis_kd: Tensor
    squares_k: Tensor
    total: Tensor

    @property
    def scale(self) -> Tensor:
        """The root mean square of all coefficients, a scalar."""
        return (self.squares_k.mean() / self.count).sqrt()


def principal_components(chunks: Iterable[Tensor], k: int, what: str, key: str) -> Principal:
    """Exact eigenvectors in float64, from the smaller of the N×N and the d×d matrix of products.

    Args:
        chunks: training Δ, each (n, O, I), at least one.
        what, key: for messages, what needs the components and the dotted param that says how many.

    Raises:
        UserError: the Δ do not span k directions.
    """
    found = list(chunks)
    x_Nd = (torch.cat(found) if len(found) > 1 else found[0]).flatten(1)
    count, entries = x_Nd.shape
    if k > min(count - 1, entries):
        raise UserError(
            f"{what}: {count} training Δ of {entries} entries have at most {min(count - 1, entries)} components; "
            f"lower {key} from {k}"
        )
    mean_d = x_Nd.mean(0, dtype=torch.float64)
    values, vectors_dk = _eigen(x_Nd, mean_d, k)
    total = values.sum()
    values = values[-k:].flip(0)
    if values[-1] <= _ROUNDING * total:
        rank = int((values > _ROUNDING * total).sum())
        raise UserError(f"{what}: the training Δ span only {rank} directions; lower {key} from {k}")
    largest = vectors_dk.abs().argmax(0, keepdim=True)
    vectors_dk = vectors_dk * vectors_dk.gather(0, largest).sign()  # the sign of an eigenvector is arbitrary; fix it
    return Principal(count, mean_d, vectors_dk.T, values, total)


def directions(delta_NOI: Tensor) -> int:
    """How many components `principal_components` finds in these Δ at most: 0 if all are equal."""
    x_Nd = delta_NOI.flatten(1)
    values = torch.linalg.eigvalsh(_products(x_Nd, x_Nd.mean(0, dtype=torch.float64)))
    return min(int((values > _ROUNDING * values.sum()).sum()), len(x_Nd) - 1)


def _eigen(x_Nd: Tensor, mean_d: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """All eigenvalues, ascending, and the first k principal directions (d, k), float64."""
    values, vectors = torch.linalg.eigh(_products(x_Nd, mean_d))
    vectors = vectors[:, -k:].flip(1)
    if len(x_Nd) > x_Nd.shape[1]:
        return values, vectors
    vectors = (x_Nd.double() - mean_d).T @ vectors
    return values, vectors / vectors.norm(dim=0).clamp_min(torch.finfo(torch.float64).tiny)


def _products(x_Nd: Tensor, mean_d: Tensor) -> Tensor:
    """The products of the centred rows, (N, N), or of their columns, (d, d), whichever matrix is smaller; float64."""
    count, entries = x_Nd.shape
    if count <= entries:
        centred = x_Nd.double() - mean_d
        return centred @ centred.T
    products = torch.zeros(entries, entries, dtype=torch.float64)
    for block in torch.split(x_Nd, 2048):
        centred = block.double() - mean_d
        products.addmm_(centred.T, centred)
    return products
