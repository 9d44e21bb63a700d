"""Data structures that do not depend on the task: batches of samples, splits, and the condition of a batch.

Outputs and targets are one tensor or a tuple of tensors (`Tensors`); the samples are the first axis of each.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from torch import Tensor

from ocd_core.errors import UserError

SplitName = Literal["train", "val", "test"]
SPLITS: tuple[SplitName, ...] = ("train", "val", "test")

Tensors = Tensor | tuple[Tensor, ...]
Rows = Tensor | slice
# the loss of each sample: (output (N, ...), target (N, ...)) -> (N,)
SampleLoss = Callable[[Any, Any], Tensor]


def as_tuple(x: Tensors) -> tuple[Tensor, ...]:
    """The tensors of x: x alone, or its parts in order."""
    return (x,) if isinstance(x, Tensor) else tuple(x)


def only(x: Tensors) -> Tensor:
    """Return `x` itself, for a domain whose outputs or targets are one tensor."""
    assert isinstance(x, Tensor)
    return x


def map_tensors(f: Callable[[Tensor], Tensor], x: Tensors) -> Tensors:
    """Apply `f` to each tensor and keep the structure."""
    return f(x) if isinstance(x, Tensor) else tuple(f(part) for part in x)


def select(x: Tensors, rows: Rows) -> Tensors:
    """Some samples of each tensor (rows may repeat)."""
    return map_tensors(lambda part: part[rows], x)


def one_sample(x: Tensors, row: int) -> Tensors:
    """One sample's tensors, without the samples' axis."""
    return map_tensors(lambda part: part[row], x)


def concatenate(parts: Sequence[Tensors], axis: int = 0) -> Tensors:
    """Batches of the same structure as one batch, along the samples' axis."""
    return _joined(lambda same: torch.cat(same, axis), parts)


def stack(parts: Sequence[Tensors]) -> Tensors:
    """K values of the same structure and shapes (N, ...) as (K, N, ...)."""
    return _joined(torch.stack, parts)


def _joined(join: Callable[[list[Tensor]], Tensor], parts: Sequence[Tensors]) -> Tensors:
    if isinstance(parts[0], Tensor):
        return join([part for part in parts if isinstance(part, Tensor)])
    return tuple(join(list(same)) for same in zip(*(as_tuple(part) for part in parts), strict=True))


def flat(x: Tensors) -> Tensor:
    """Each sample's values in one row, (N, D): the tensors, flattened, side by side; (N,) becomes (N, 1)."""
    rows = [part.flatten(1) if part.dim() > 1 else part[:, None] for part in as_tuple(x)]
    return rows[0] if len(rows) == 1 else torch.cat(rows, 1)


def paired(output: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Outputs and targets of one shape, each sample's values in one row, both (N, D); (N,) stands for (N, 1).

    Raises:
        UserError: a sample has more values in one than in the other, which torch would repeat.
    """
    output_ND, target_ND = flat(output), flat(target)
    if output_ND.shape != target_ND.shape:
        raise UserError(
            f"the network's output has shape {tuple(output.shape)}, but its target {tuple(target.shape)}; give the "
            "network as many outputs for a sample as the target has values"
        )
    return output_ND, target_ND


def in_dtype(inputs: Sequence[Tensor], dtype: torch.dtype) -> tuple[Tensor, ...]:
    """A network's inputs in its precision; integers stay."""
    return tuple(x.to(dtype) if x.is_floating_point() else x for x in inputs)


def is_finite(x: Tensors) -> bool:
    """Whether no tensor holds NaN or infinity."""
    return all(bool(torch.isfinite(part).all()) for part in as_tuple(x))


@dataclass(frozen=True)
class Batch:
    """N samples. inputs: what the model is called with, each (N, ...). target: each (N, ...). sample_id: int64 (N,)."""

    inputs: tuple[Tensor, ...]
    target: Tensors
    sample_id: Tensor

    def __len__(self) -> int:
        return len(self.sample_id)

    def to(self, device: torch.device | str) -> "Batch":
        """The same on another device."""
        return self._map(lambda x: x.to(device))

    def select(self, rows: Rows) -> "Batch":
        """The same for some of the samples (rows may repeat)."""
        return self._map(lambda x: x[rows])

    def without_labels(self) -> "Batch":
        """The same with zeros in place of the targets."""
        return Batch(self.inputs, map_tensors(torch.zeros_like, self.target), self.sample_id)

    def _map(self, f: Callable[[Tensor], Tensor]) -> "Batch":
        return Batch(tuple(f(x) for x in self.inputs), map_tensors(f, self.target), f(self.sample_id))


@runtime_checkable
class Split(Protocol):
    """One part of the prepared data: rows 0 .. len-1.

    An attribute `groups`, which `groups_of` reads, says which samples belong together (the documents of a query, the
    recordings of a speaker). An attribute `one_by_one`, which `rows_at_once` reads, says that samples differ in shape.
    """

    def __len__(self) -> int: ...

    def batch(self, sample_id: Tensor) -> Batch:
        """The samples of these rows (int64, (N,)), in this order."""
        ...


def groups_of(split: Split) -> Tensor | None:
    """The group of each row, int64 (len,), from the split's attribute `groups`; None if it has none.

    Raises:
        UserError: `groups` is not an int64 tensor with one number per row.
    """
    groups = getattr(split, "groups", None)
    if groups is None:
        return None
    if not isinstance(groups, Tensor) or groups.dtype != torch.int64 or groups.shape != (len(split),):
        found = f"{groups.dtype} {tuple(groups.shape)}" if isinstance(groups, Tensor) else type(groups).__name__
        raise UserError(f"groups of a split must be an int64 tensor of shape ({len(split)},), not {found}")
    return groups


def rows_at_once(split: Split, rows: int) -> int:
    """`rows`, or 1 if samples differ in shape and each must be alone in what is measured or stored of it.

    A split says so by an attribute `one_by_one`. Its batches of several samples may leave parts of them out.
    """
    return 1 if getattr(split, "one_by_one", False) else rows


def rows_by_group(groups: Tensor) -> list[Tensor]:
    """The rows of each group, int64 and ascending, by ascending group number."""
    counts: list[int] = torch.unique(groups, return_counts=True)[1].tolist()
    return list(torch.split(torch.argsort(groups, stable=True), counts))


@dataclass(frozen=True)
class Condition:
    """I(x) = [i_L(x), a_L(x), f_θ(x)] (Eq. 4) of N samples, float32, each (N, ...)."""

    layer_input: Tensor
    layer_activation: Tensor
    base_output: Tensor

    @classmethod
    def joined(cls, several: Iterable["Condition"]) -> "Condition":
        """The samples of several, one after the other."""
        return cls(*(torch.cat(same) for same in zip(*(one.parts() for one in several), strict=True)))

    def __len__(self) -> int:
        return len(self.layer_input)

    def parts(self) -> tuple[Tensor, Tensor, Tensor]:
        """The three components in the order of Eq. 4."""
        return self.layer_input, self.layer_activation, self.base_output

    def select(self, rows: Rows) -> "Condition":
        """The same for some of the samples (rows may repeat)."""
        return Condition(*(p[rows] for p in self.parts()))

    def to(self, device: torch.device | str) -> "Condition":
        """The same on another device."""
        return Condition(*(p.to(device) for p in self.parts()))


def spread_rows(rows: int, count: int) -> Tensor:
    """Up to `count` different rows from the first of `rows` to the last, int64: data may be sorted."""
    return torch.linspace(0, rows - 1, min(rows, count), dtype=torch.float64).round().long()


def whole_split(split: Split) -> Tensor:
    """All rows of a split, int64."""
    return torch.arange(len(split))


@dataclass(frozen=True)
class Samples:
    """A split with I(x) of each of its samples, in the split's order, or of some of them.

    chosen: the samples of the split that the rows stand for, int64; None: all, in its order.
    """

    split: Split
    condition: Condition
    chosen: Tensor | None = None

    def __len__(self) -> int:
        return len(self.condition)

    def sample_id(self, rows: Tensor) -> Tensor:
        """The samples of the split that some rows stand for, int64."""
        return rows if self.chosen is None else self.chosen[rows]
