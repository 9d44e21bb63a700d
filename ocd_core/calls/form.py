"""The form of the training samples, which those of every other split and of `predict` must have.

Only what a network or a loss could take silently for something else must be alike: torch stretches axes of size one. Of
inputs the sizes may differ, if the network takes them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from ocd_core.calls.data import Parts
from ocd_core.errors import UserError


@dataclass(frozen=True)
class _Tensor:
    """One input or target of a sample."""

    name: str
    shape: tuple[int, ...]
    floating: bool

    def __str__(self) -> str:
        kind = "floating-point" if self.floating else "whole"
        return f"{self.name}: shape {self.shape} a sample, {kind} numbers"

    def is_like(self, other: "_Tensor", sizes: bool) -> bool:
        same = (self.name, len(self.shape), self.floating) == (other.name, len(other.shape), other.floating)
        return same and (not sizes or self.shape == other.shape)


@dataclass(frozen=True)
class Form:
    """Names, shapes and kinds of numbers of inputs and targets.

    Examples:
        >>> import torch
        >>> from ocd_core.calls.data import Parts
        >>> x, y = Parts.of(torch.zeros(4, 3), "x"), Parts.of(torch.zeros(4, 1), "y")
        >>> Form.of(x, y).refuse_others(x, Parts.of(torch.zeros(4), "y"), "val")
        Traceback (most recent call last):
        ...
        ocd_core.errors.UserError: val: its targets are (y0: shape () a sample, floating-point numbers), but those of \
train are (y0: shape (1,) a sample, floating-point numbers); give them in one form
    """

    inputs: tuple[_Tensor, ...]
    by_name: bool
    target: tuple[_Tensor, ...]
    target_by_name: bool

    @classmethod
    def of(cls, inputs: Parts, target: Parts) -> "Form":
        """That of some samples, each tensor (N, ...)."""
        return cls(_tensors(inputs, "x"), inputs.names is not None, _tensors(target, "y"), target.names is not None)

    @property
    def names(self) -> list[str]:
        """Of the inputs."""
        return [tensor.name for tensor in self.inputs]

    def refuse_others(self, inputs: Parts, target: Parts | None, what: str) -> None:
        """Compare other samples; `target`: None if there are only inputs.

        Raises:
            UserError: they have other tensors, names, numbers of axes or kinds of numbers, or other shapes of targets.
        """
        _refuse(self.inputs, _tensors(inputs, "x"), f"{what}: its inputs", sizes=False)
        if (inputs.names is not None) != self.by_name:
            raise UserError(f"{what}: give its inputs {'as a dict' if self.by_name else 'without names'}, as in train")
        if target is None:
            return
        _refuse(self.target, _tensors(target, "y"), f"{what}: its targets", sizes=True)
        if (target.names is not None) != self.target_by_name:
            how = "as a dict" if self.target_by_name else "without names"
            raise UserError(f"{what}: give its targets {how}, as in train")


def _tensors(parts: Parts, letter: str) -> tuple[_Tensor, ...]:
    names: Sequence[str] = parts.names or [f"{letter}{i}" for i in range(len(parts.tensors))]
    return tuple(_of(name, tensor) for name, tensor in zip(names, parts.tensors, strict=True))


def _of(name: str, tensor: Tensor) -> _Tensor:
    return _Tensor(name, tuple(tensor.shape[1:]), tensor.is_floating_point())


def _refuse(known: tuple[_Tensor, ...], found: tuple[_Tensor, ...], what: str, sizes: bool) -> None:
    if len(known) == len(found) and all(a.is_like(b, sizes) for a, b in zip(known, found, strict=True)):
        return
    here, there = ("; ".join(map(str, tensors)) for tensors in (found, known))
    raise UserError(f"{what} are ({here}), but those of train are ({there}); give them in one form")
