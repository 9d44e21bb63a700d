"""Counting the floating-point operations of a call, the measure in which trainings are compared."""

from collections.abc import Callable, Sequence
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
