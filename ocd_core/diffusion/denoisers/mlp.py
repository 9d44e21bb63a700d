"""`mlp`: residual blocks with adaptive normalisation, for codes of any shape.

Dims: N samples, S timesteps, B blocks, E dims of e, W width.
"""

import math
from collections.abc import Callable, Sequence
from functools import partial

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

    def for_drawing(self) -> "FrozenMLP":
        """See `ocd_core.diffusion.denoisers.for_drawing`."""
        return FrozenMLP(self)


class FrozenMLP:
    """An `MLPDenoiser` in eval mode, without gradients, with the weights that it had when this was made.

    For a single sample most of the time would go into calling modules and into small operations. So the scales and
    shifts of all blocks are computed at once, for several timesteps, and modules are not called.
    """

    def __init__(self, net: MLPDenoiser) -> None:
        tensors, blocks = net.state_dict(), range(len(net.blocks))

        def weights(name: str) -> tuple[Tensor, Tensor]:
            return tensors[f"{name}.weight"], tensors[f"{name}.bias"]

        self.shape, self.width = net.shape, net.norm.normalized_shape
        self.first, self.modulation, self.norm, self.last = map(weights, ("first", "modulation", "norm", "last"))
        self.layers = [weights(f"blocks.{i}.layer") for i in blocks]
        self.offset_B12W = torch.stack([tensors[f"blocks.{i}.offset"] for i in blocks])[:, None]
        self.offset_B12W[..., : self.width[0]] += 1  # the norms are multiplied by 1 + scale

    def __call__(self, e_SNE: Tensor) -> list[Callable[[Tensor], Tensor]]:
        """For each timestep, the function from Ω_t (N, *shape) to the output (N, *shape)."""
        modulation_SN2W = F.linear(F.silu(e_SNE), *self.modulation)
        scale_SBNW, shift_SBNW = (modulation_SN2W[:, None] + self.offset_B12W).chunk(2, dim=-1)
        return [partial(self._run, *both) for both in zip(scale_SBNW.unbind(), shift_SBNW.unbind(), strict=True)]

    def _run(self, scale_BNW: Tensor, shift_BNW: Tensor, omega_t: Tensor) -> Tensor:
        h_NW = F.linear(omega_t.flatten(1), *self.first)
        for scale_NW, shift_NW, layer in zip(scale_BNW.unbind(), shift_BNW.unbind(), self.layers, strict=True):
            inner_NW = torch.addcmul(shift_NW, torch.layer_norm(h_NW, self.width), scale_NW)
            h_NW += F.linear(F.silu(inner_NW, inplace=True), *layer)
        return F.linear(torch.layer_norm(h_NW, self.width, *self.norm), *self.last).view(-1, *self.shape)


def build(params: DenoiserParams, shape: Sequence[int], embedding: int) -> nn.Module:
    """See `ocd_core.diffusion.denoisers.build_denoiser`."""
    return MLPDenoiser(shape, embedding, params.width, params.depth, params.dropout)
