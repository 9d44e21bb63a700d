"""What data looks like: a batch of samples, a split of them, and what a network says of them. Knows no task."""

from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import torch
from torch import Tensor

SplitName = Literal["train", "val", "test"]


SPLITS: tuple[SplitName, ...] = ("train", "val", "test")


@dataclass(frozen=True)
class Batch:
    """N samples. inputs: what the model is called with, each (N, ...). target: (N, ...). sample_id: int64 (N,)."""

    inputs: tuple[Tensor, ...]
    target: Tensor
    sample_id: Tensor

    def __len__(self) -> int:
        return len(self.sample_id)

    def to(self, device: torch.device | str) -> "Batch":
        """The same on another device."""
        return Batch(tuple(x.to(device) for x in self.inputs), self.target.to(device), self.sample_id.to(device))


@runtime_checkable
class Split(Protocol):
    """One part of the prepared data: rows 0 .. len-1."""

    def __len__(self) -> int: ...

    def batch(self, sample_id: Tensor) -> Batch:
        """The samples of these rows (int64, (N,)), in this order."""
        ...


@dataclass(frozen=True)
class Condition:
    """I(x) = [i_L(x), a_L(x), f_θ(x)] (Eq. 4) of N samples, float32, each (N, ...)."""

    layer_input: Tensor
    layer_activation: Tensor
    base_output: Tensor

    def __len__(self) -> int:
        return len(self.layer_input)

    def parts(self) -> tuple[Tensor, Tensor, Tensor]:
        """The three components in the order of Eq. 4."""
        return self.layer_input, self.layer_activation, self.base_output

    def select(self, rows: Tensor | slice) -> "Condition":
        """The same for some of the samples (rows may repeat)."""
        return Condition(*(p[rows] for p in self.parts()))

    def to(self, device: torch.device | str) -> "Condition":
        """The same on another device."""
        return Condition(*(p.to(device) for p in self.parts()))


def whole_split(split: Split) -> Tensor:
    """All rows of a split, int64."""
    return torch.arange(len(split))
