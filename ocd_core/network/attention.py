"""`nn.MultiheadAttention` whose output projection is called like any other layer, so that its weight can move.

torch reads the weight of `out_proj` without calling the layer: nothing then says what the layer reads, and its output
cannot be replaced.
"""

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

_PROJECTION = "out_proj"


def call_projections(network: nn.Module, names: Sequence[str]) -> None:
    """Change the attention modules of a network, in place, whose output projection is one of the layers `names`.

    Outputs stay the same, within rounding.
    """
    for name in names:
        parent, _, last = name.rpartition(".")
        module = network.get_submodule(parent)
        if last == _PROJECTION and type(module) is nn.MultiheadAttention:
            module.__class__ = CallingAttention
            # torch's layers around it then do not use their fused kernels, which read the weight, too
            module._same_dims, module._qkv_same_embed_dim = module._qkv_same_embed_dim, False


class _Unchanged(nn.Module):
    """What stands in place of the projection while torch computes what the projection reads."""

    def __init__(self, like: Tensor) -> None:
        super().__init__()
        self.weight = torch.eye(len(like), dtype=like.dtype, device=like.device)
        self.bias = like.new_zeros(len(like))


class CallingAttention(nn.MultiheadAttention):
    """`nn.MultiheadAttention` that calls `out_proj`; `call_projections` makes it of a finished module."""

    def forward(self, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor | None]:
        """As in torch."""
        inner = copy.copy(self)
        object.__setattr__(inner, "__class__", nn.MultiheadAttention)
        inner._qkv_same_embed_dim = self._same_dims
        inner._modules = {**self._modules, _PROJECTION: _Unchanged(self.out_proj.weight)}
        attended, weights = inner.forward(*args, **kwargs)
        return self.out_proj(attended), weights
