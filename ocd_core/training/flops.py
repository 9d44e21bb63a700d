"""Counting the floating-point operations of a call, the measure in which trainings are compared."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn


def flops(run: Callable[[], Any]) -> int:
    """Floating-point operations of the matrix products and convolutions in a call."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        run()
    return int(counter.get_total_flops())


def backward_flops(loss: Callable[[], Tensor], parameters: Sequence[nn.Parameter]) -> int:
    """Those of a loss, a scalar, and of its gradient; the parameters' own gradients do not change."""
    trained = [p for p in parameters if p.requires_grad]

    def run() -> None:
        torch.autograd.grad(loss(), trained, allow_unused=True)

    return flops(run)


def update_flops(loss: Callable[[int, int, int], Tensor], parameters: Sequence[nn.Parameter], parts: int) -> int:
    """Those of one update on a batch cut into parts, counted part by part, so that it needs no more memory than one.

    loss: as in `training.loop.Objective`.
    """
    return sum(backward_flops(partial(loss, 0, part, parts), parameters) for part in range(parts))
