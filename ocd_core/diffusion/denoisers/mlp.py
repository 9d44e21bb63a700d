"""`mlp`: residual blocks with adaptive normalisation, for codes of any shape.

Dims: N samples, E dims of e, W width.
"""

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ocd_core.diffusion.params import DenoiserParams


class _Block(nn.Module):
    """h + W SiLU(norm(h) (1 + scale) + shift), with scale and shift from e plus the block's own offsets."""

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.offset = nn.Parameter(torch.zeros(2 * width))
        self.dropout = nn.Dropout(dropout)
        self.layer = nn.Linear(width, width)

    def forward(self, h_NW: Tensor, modulation_N2W: Tensor) -> Tensor:
        scale, shift = (modulation_N2W + self.offset).chunk(2, dim=1)
        out: Tensor = h_NW + self.layer(self.dropout(F.silu(torch.addcmul(shift, self.norm(h_NW), 1 + scale))))
        return out


class MLPDenoiser(nn.Module):
    """A residual network over the flattened code; e scales and shifts its layer norms.

    All blocks share the map from e to scale and shift, and each block adds its own offset (adaLN-single, Chen et al.,
    2023): otherwise most of the work would go into these maps.
    """

    def __init__(self, shape: Sequence[int], embedding: int, width: int, depth: int, dropout: float) -> None:
        super().__init__()
        self.shape = tuple(shape)
        entries = math.prod(shape)
        self.first = nn.Linear(entries, width)
        self.modulation = nn.Linear(embedding, 2 * width)
        self.blocks = nn.ModuleList(_Block(width, dropout) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.last = nn.Linear(width, entries)

    def forward(self, omega_t: Tensor, e_NE: Tensor) -> Tensor:
        """omega_t: (N, *shape), e_NE: (N, E). Returns (N, *shape)."""
        h_NW = self.first(omega_t.flatten(1))
        modulation_N2W = self.modulation(F.silu(e_NE))
        for block in self.blocks:
            h_NW = block(h_NW, modulation_N2W)
        out: Tensor = self.last(self.norm(h_NW))
        return out.view(-1, *self.shape)


def build(params: DenoiserParams, shape: Sequence[int], embedding: int) -> nn.Module:
    """See `ocd_core.diffusion.denoisers.build_denoiser`."""
    return MLPDenoiser(shape, embedding, params.width, params.depth, params.dropout)
