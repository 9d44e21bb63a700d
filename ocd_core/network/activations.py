"""How many activations a network has, from which the memory of a pass follows."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn


@torch.no_grad()
def count_values(network: nn.Module, inputs: Sequence[Tensor]) -> tuple[int, int]:
    """How many values the inputs and outputs of the modules have in a forward pass: all of them, and the largest."""
    values = sum(int(x.numel()) for x in inputs)
    largest = max(int(x.numel()) for x in inputs)

    def count(_module: nn.Module, _args: tuple[Tensor, ...], out: object) -> None:
        nonlocal values, largest
        if isinstance(out, Tensor):
            values += out.numel()
            largest = max(largest, out.numel())

    leaves = [module for module in network.modules() if not list(module.children())]
    hooks = [module.register_forward_hook(count) for module in leaves]
    try:
        network(*inputs)
    finally:
        for hook in hooks:
            hook.remove()
    return values, largest
