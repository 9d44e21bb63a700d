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

    The chunks are read once. They are kept if there are no more Δ than entries; otherwise memory is that of the matrix
    and of one chunk, however many Δ there are.

    Args:
        chunks: training Δ, each (n, O, I), at least one.
        what, key: for messages, what needs the components and the dotted param that says how many.

    Raises:
        UserError: the Δ do not span k directions.
    """
    found = _products(chunks)
    most = min(found.count - 1, len(found.mean_d))
    if k > most:
        raise UserError(
            f"{what}: {found.count} training Δ of {len(found.mean_d)} entries have at most {most} components; "
            f"lower {key} from {k}"
        )
    values, vectors = torch.linalg.eigh(found.matrix)
    vectors = vectors[:, -k:].flip(1)
    total = values.sum()
    values = values[-k:].flip(0)
    if values[-1] <= _ROUNDING * total:
        rank = int((values > _ROUNDING * total).sum())
        raise UserError(f"{what}: the training Δ span only {rank} directions; lower {key} from {k}")
    vectors_dk = found.to_columns(vectors)
    largest = vectors_dk.abs().argmax(0, keepdim=True)
    vectors_dk = vectors_dk * vectors_dk.gather(0, largest).sign()  # the sign of an eigenvector is arbitrary; fix it
    return Principal(found.count, found.mean_d, vectors_dk.T, values, total)


def directions(delta_NOI: Tensor) -> int:
    """How many components `principal_components` finds in these Δ at most: 0 if all are equal."""
    values = torch.linalg.eigvalsh(_products([delta_NOI]).matrix)
    return min(int((values > _ROUNDING * values.sum()).sum()), len(delta_NOI) - 1)


@dataclass(frozen=True)
class _Products:
    """The products of N centred rows, (N, N), or of their columns, (d, d); float64. rows_Nd: only for the former."""

    count: int
    mean_d: Tensor
    matrix: Tensor
    rows_Nd: Tensor | None = None

    def to_columns(self, vectors: Tensor) -> Tensor:
        """The directions (d, k) of eigenvectors of the matrix."""
        if self.rows_Nd is None:
            return vectors
        vectors_dk = (self.rows_Nd.double() - self.mean_d).T @ vectors
        norm_k: Tensor = vectors_dk.norm(dim=0)
        return vectors_dk / norm_k.clamp_min(torch.finfo(torch.float64).tiny)


def _products(chunks: Iterable[Tensor]) -> _Products:
    """Those of the smaller matrix."""
    held: list[Tensor] = []
    sums: _ColumnSums | None = None
    for chunk in chunks:
        x_nd = chunk.flatten(1)
        if sums is None:
            held.append(x_nd)
            if sum(map(len, held)) > x_nd.shape[1]:
                sums = _ColumnSums(_rows(held).mean(0, dtype=torch.float64))
                for x in held:
                    sums.add(x)
                held = []
        else:
            sums.add(x_nd)
    if sums is not None:
        return sums.products()
    x_Nd = _rows(held)
    mean_d = x_Nd.mean(0, dtype=torch.float64)
    centred = x_Nd.double() - mean_d
    return _Products(len(x_Nd), mean_d, centred @ centred.T, x_Nd)


def _rows(chunks: list[Tensor]) -> Tensor:
    return torch.cat(chunks) if len(chunks) > 1 else chunks[0]


class _ColumnSums:
    """Sums of rows and of their products about an offset near the mean, so that centring them loses no digits."""

    def __init__(self, offset_d: Tensor) -> None:
        self.count, self.offset_d = 0, offset_d
        self.sum_d = torch.zeros_like(offset_d)
        self.products_dd = torch.zeros(len(offset_d), len(offset_d), dtype=torch.float64)

    def add(self, x_nd: Tensor) -> None:
        for block in torch.split(x_nd, 2048):
            near = block.double() - self.offset_d
            self.sum_d += near.sum(0)
            self.products_dd.addmm_(near.T, near)
        self.count += len(x_nd)

    def products(self) -> _Products:
        shift_d = self.sum_d / self.count
        return _Products(
            self.count, self.offset_d + shift_d, self.products_dd - self.count * torch.outer(shift_d, shift_d)
        )
