"""Convolutions with their channels innermost in memory.

On a CPU, pooling takes half of a small convolutional network's time, or a third of that in this order.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


def lay_out(network: nn.Module, memory_format: torch.memory_format, but: Sequence[nn.Module] = ()) -> bool:
    """Store the weights of two-dimensional convolutions in this order, where they are parameters.

    Args:
        but: modules that stay as they are.

    Returns:
        Whether there are any.
    """
    found = False
    for module in network.modules():
        weight = module._parameters.get("weight") if isinstance(module, nn.Conv2d) else None
        if weight is not None and not any(module is one for one in but):
            module.weight = nn.Parameter(weight.contiguous(memory_format=memory_format), requires_grad=False)
            found = True
    return found


def with_channels_last(inputs: Sequence[Tensor]) -> list[Tensor]:
    """The inputs, images with their channels innermost."""
    return [x.contiguous(memory_format=torch.channels_last) if x.dim() == 4 else x for x in inputs]
