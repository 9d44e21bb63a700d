"""The network ε_Ω by name: what it sees is Ω_t and e, what it gives has the shape of Ω_t.

- `mlp`: residual blocks with adaptive normalisation, for codes of any shape.
- `unet`: convolutions over the matrix, padded to what its levels need, attention at the lowest level.
- `unet_paper`: as in section 3.3: padded to a square, attention at each level, two attentions in the bottleneck.
- `unet_released`: as in the authors' code: padded to a square of 128 at least, attention at resolution 16 and in the
  bottleneck.

The U-Nets are diffusers' `UNet2DModel`; their sizes are params, those of the paper and of the authors' code are in
`ocd_core.presets`.

Dims: N samples, E dims of e, d entries of a code, W width.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ocd_core.diffusion.params import DenoiserParams
from ocd_core.errors import UserError


def build_denoiser(params: DenoiserParams, shape: Sequence[int], embedding: int) -> nn.Module:
    """A denoiser with fresh weights for codes of this shape: (Ω_t (N, *shape), e (N, E)) -> (N, *shape).

    Raises:
        UserError: a U-Net for codes that are not matrices, or so small that its levels halve away to nothing.
    """
    if params.name == "mlp":
        return MLPDenoiser(shape, embedding, params.width, params.depth, params.dropout)
    return UNetDenoiser(shape, embedding, params)


class _Block(nn.Module):
    """h + W SiLU(norm(h) (1 + scale) + shift), scale and shift being e's plus the block's own."""

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
    """A residual network over the flattened code, whose layer norms are scaled and shifted by e.

    The map from e to scale and shift is shared by all blocks, each of which adds an offset of its own (adaLN-single,
    Chen et al., 2023): most of the work would otherwise go into these maps.
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


class _Layout(NamedTuple):
    """What a U-Net's name fixes."""

    square: int | None  # pad to a square of at least this; None: to no square
    attention: str  # at which levels: "all", "lowest", or "16": where the padded matrix has that many rows
    bottleneck: int  # attentions in the bottleneck


_LAYOUTS = {
    "unet": _Layout(square=None, attention="lowest", bottleneck=1),
    "unet_paper": _Layout(square=1, attention="all", bottleneck=2),
    "unet_released": _Layout(square=128, attention="16", bottleneck=1),
}


class _NoTime(nn.Module):
    """In the place of UNet2DModel's own embedding of t: PE(t) comes within e."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, t_emb: Tensor) -> Tensor:
        return t_emb.new_zeros(len(t_emb), self.dim)


class UNetDenoiser(nn.Module):
    """A U-Net over the matrix as a one-channel image; zeros are added at its lower and right edges, and cropped.

    e enters every residual block through a two-layer network, as the time embedding does in Ho et al. (2020).
    """

    def __init__(self, shape: Sequence[int], embedding: int, params: DenoiserParams) -> None:
        super().__init__()
        from diffusers import UNet2DModel
        from diffusers.models.unets.unet_2d_blocks import UNetMidBlock2D

        if len(shape) != 2:
            raise UserError(
                f"denoiser {params.name} works on matrices and the codes have shape {tuple(shape)}: "
                "use representation dense, or denoiser mlp"
            )
        layout = _LAYOUTS[params.name]
        levels = len(params.multipliers)
        rows, columns = padded_size(shape, levels, layout.square)
        channels = [params.width * m for m in params.multipliers]
        groups = math.gcd(32, *channels)
        while groups > 1 and min(channels) < 4 * groups:  # a group of one value is normalised to 0 at resolution 1
            groups //= 2
        attends = [
            {"all": True, "lowest": level == levels - 1, "16": rows >> level == 16}[layout.attention]
            for level in range(levels)
        ]
        inner = 4 * channels[0]
        self.size = (rows, columns)
        self.crop = (shape[0], shape[1])
        self.embed = nn.Sequential(nn.Linear(embedding, inner), nn.SiLU(), nn.Linear(inner, inner))
        self.unet = UNet2DModel(
            sample_size=self.size,
            in_channels=1,
            out_channels=1,
            block_out_channels=tuple(channels),
            down_block_types=tuple("AttnDownBlock2D" if a else "DownBlock2D" for a in attends),
            up_block_types=tuple("AttnUpBlock2D" if a else "UpBlock2D" for a in reversed(attends)),
            layers_per_block=params.depth,
            dropout=params.dropout,
            attention_head_dim=None,  # one head, as in Ho et al. (2020)
            norm_num_groups=groups,
            class_embed_type="identity",
        )
        self.unet.time_embedding = _NoTime(inner)
        if layout.bottleneck != 1:
            self.unet.mid_block = UNetMidBlock2D(
                in_channels=channels[-1],
                temb_channels=inner,
                dropout=params.dropout,
                num_layers=layout.bottleneck,
                resnet_eps=1e-5,
                resnet_act_fn="silu",
                resnet_groups=groups,
                attention_head_dim=channels[-1],
            )

    def forward(self, omega_t: Tensor, e_NE: Tensor) -> Tensor:
        """omega_t: (N, O, I), e_NE: (N, E). Returns (N, O, I)."""
        rows, columns = self.crop
        image = F.pad(omega_t, (0, self.size[1] - columns, 0, self.size[0] - rows)).unsqueeze(1)
        out: Tensor = self.unet(image, 0, class_labels=self.embed(e_NE), return_dict=False)[0]
        return out[:, 0, :rows, :columns]


def padded_size(shape: Sequence[int], levels: int, square: int | None) -> tuple[int, int]:
    """The smallest size that `levels` - 1 halvings divide and that holds a matrix of this shape.

    square: None, or the least side of a square.
    """
    step = 2 ** (levels - 1)
    if square is not None:
        shape = (max(*shape, square),) * 2
    rows, columns = (math.ceil(n / step) * step for n in shape)
    return rows, columns
