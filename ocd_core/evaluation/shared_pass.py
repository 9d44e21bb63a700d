"""One batch of test samples as all rows see it: what several rows need is computed once, on first use.

Dims: N samples, K draws.
"""

from collections.abc import Callable, Hashable
from functools import cached_property
from typing import Any, TypeVar

from torch import Tensor

from ocd_core.network.moves import BasePass, Move
from ocd_core.predictor import Predictor
from ocd_core.samples import Batch, SplitName, Tensors, in_dtype, stack

T = TypeVar("T")


class SharedPass:
    """A batch without its labels, one pass of the base network over it, and the draws made for it so far.

    Args:
        predictor: of the run.
        batch: on the CPU, with labels; rows see zeros instead of the labels.
        split: the split that it is a part of.
    """

    def __init__(self, predictor: Predictor, batch: Batch, split: SplitName) -> None:
        self.predictor, self.split = predictor, split
        self.batch = batch.without_labels()
        self._computed: dict[Hashable, Any] = {}

    def __len__(self) -> int:
        return len(self.batch)

    @cached_property
    def on_device(self) -> Batch:
        """The batch on the device of the networks."""
        return self.batch.to(self.predictor.device)

    @cached_property
    def inputs(self) -> tuple[Tensor, ...]:
        """The inputs on that device, in the precision of the tail: for networks that run as a whole."""
        return in_dtype(self.on_device.inputs, self.predictor.model.dtype)

    @cached_property
    def base(self) -> BasePass:
        """The base network's cut, I(x) and outputs."""
        return self.predictor.base_pass(self.on_device)

    def drawn(self, predictor: Predictor | None = None) -> "Drawn":
        """The draws of a predictor for this batch (default: the run's), the same object for all rows."""
        who = predictor or self.predictor
        return self.once((Drawn, id(who)), lambda: Drawn(who, self.base, self.batch.sample_id))

    def outputs_with(self, move: Move) -> Tensors:
        """f(x; θ + Δ) of the base network, (N, ...)."""
        return self.predictor.answer(self.base, move)

    def once(self, key: Hashable, compute: Callable[[], T]) -> T:
        """The result of the first call of `compute` for this batch with this key."""
        if key not in self._computed:
            self._computed[key] = compute()
        found: T = self._computed[key]
        return found


class Drawn:
    """The draws of one predictor for one batch: draw k depends only on (seed, k, sample id)."""

    def __init__(self, predictor: Predictor, base: BasePass, sample_id: Tensor) -> None:
        self._predictor, self._base, self._sample_id = predictor, base, sample_id
        self._codes: dict[int, Tensor] = {}
        self._outputs: dict[int, Tensors] = {}

    @cached_property
    def rho_N(self) -> Tensor | None:
        """The scale network's ρ, (N,), or None if the representation does not use it."""
        return self._predictor.estimate_rho(self._base)

    def code(self, k: int) -> Tensor:
        """The code of draw k, (N, *shape)."""
        if k not in self._codes:
            self._codes[k] = self._predictor.code(self._base, self._sample_id, k)
        return self._codes[k]

    def move(self, k: int, rho_N: Tensor | None = None) -> Move:
        """Draw k as Δ (N, O, I) or Δ i_L (N, O), with the predictor's gain; it is not kept, because Δ is large.

        rho_N: replaces the scale network's ρ.
        """
        return self._predictor.move(self._base, self.code(k), self.rho_N if rho_N is None else rho_N)

    def delta(self, k: int) -> Tensor:
        """Draw k as Δ itself, (N, O, I), whatever is cheaper; it is not kept."""
        return self._predictor.delta(self._base, self.code(k), self.rho_N)

    def output(self, k: int) -> Tensors:
        """f(x; θ + Δ) under draw k, each (N, ...)."""
        if k not in self._outputs:
            self._outputs[k] = self._predictor.answer(self._base, self.move(k))
        return self._outputs[k]

    def outputs(self, draws: int) -> Tensors:
        """The outputs of the first K draws, each (K, N, ...)."""
        return stack([self.output(k) for k in range(draws)])
