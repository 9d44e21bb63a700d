"""Adam's update (Kingma and Ba, 2015, Alg. 1) with the defaults of `torch.optim.Adam`, without its modules.

With the gradient g_k of step k: m_k = β1 m_{k-1} + (1 - β1) g_k, v_k = β2 v_{k-1} + (1 - β2) g_k², and a weight moves
by -η m̂_k / (√v̂_k + ε), with m̂_k = m_k / (1 - β1^k) and v̂_k = v_k / (1 - β2^k).

Two forms: `Moments` is the recursion alone, for gradients u ⊗ x, which the moments of u determine
(`ocd_core.overfit.rules.OuterAdam`, `ocd_core.store.factored`); `Adam` moves a tensor in place.
"""

from typing import Generic, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

BETA_1, BETA_2, EPS = 0.9, 0.999, 1e-8

_Array = TypeVar("_Array", Tensor, npt.NDArray[np.float64])


class Moments(Generic[_Array]):
    """m and v of a sequence of gradients: tensors or numpy arrays, all of one shape."""

    def __init__(self) -> None:
        self.steps = 0
        self._mean: _Array | None = None
        self._square: _Array | None = None

    def update(self, gradient: _Array) -> None:
        """Add the gradient of the next step."""
        self.steps += 1
        mean, square = (1 - BETA_1) * gradient, (1 - BETA_2) * gradient**2
        self._mean = mean if self._mean is None else BETA_1 * self._mean + mean
        self._square = square if self._square is None else BETA_2 * self._square + square

    @property
    def mean(self) -> _Array:
        """m_k, without bias correction."""
        assert self._mean is not None
        return self._mean

    @property
    def correction(self) -> float:
        """1 - β1^k, by which m_k is divided to give m̂_k."""
        return correction(BETA_1, self.steps)

    @property
    def root(self) -> _Array:
        """√v̂_k."""
        assert self._square is not None
        root: _Array = (self._square / correction(BETA_2, self.steps)) ** 0.5
        return root


class Adam:
    """Moves a tensor in place, with the operations of `torch.optim.Adam` in the same order."""

    def __init__(self, weight: Tensor, lr: float) -> None:
        self._weight, self._lr = weight, lr
        self._mean = torch.zeros_like(weight)
        self._square = torch.zeros_like(weight)
        self._steps = 0

    def __call__(self, grad: Tensor, moving: Tensor) -> None:
        """Take a step, times `moving` (0 for a sample that stays); overwrites `grad`."""
        self._steps += 1
        self._mean.lerp_(grad, 1 - BETA_1)
        self._square.mul_(BETA_2).addcmul_(grad, grad, value=1 - BETA_2)
        root = torch.div(self._square, correction(BETA_2, self._steps), out=grad).sqrt_().add_(EPS)
        self._weight.addcdiv_(self._mean * moving, root, value=-self._lr / correction(BETA_1, self._steps))


def correction(beta: float, steps: int) -> float:
    """1 - β^k, which corrects moments for their start at zero."""
    return float(1 - beta**steps)
