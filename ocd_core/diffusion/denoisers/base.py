"""What the U-Nets share: diffusers' `UNet2DModel` over the matrix. Their sizes are params.

The sizes of the paper and of the authors' code are in `ocd_core.presets`.

Dims: N samples, E dims of e, O out_features, I in_features.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch.nn.functional as F
from torch import Tensor, nn

from ocd_core.diffusion.params import DenoiserParams
from ocd_core.errors import UserError


class Layout(NamedTuple):
    """What a U-Net's name fixes."""

    square: int | None  # pad to a square with at least this side; None: not to a square
    attention: str  # at which levels: "all", "lowest", or "16": at the level with 16 rows
    bottleneck: int  # number of attentions in the bottleneck


class _NoTime(nn.Module):
    """Replaces UNet2DModel's own embedding of t: e already contains PE(t)."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.dim = dim

    def forward(self, t_emb: Tensor) -> Tensor:
        return t_emb.new_zeros(len(t_emb), self.dim)


class UNetDenoiser(nn.Module):
    """A U-Net over the matrix as a one-channel image, padded with zeros at its lower and right edges, then cropped.

    e enters every residual block through a two-layer network, like the time embedding of Ho et al. (2020).
    """

    def __init__(self, shape: Sequence[int], embedding: int, params: DenoiserParams, layout: Layout) -> None:
        super().__init__()
        from diffusers import UNet2DModel
        from diffusers.models.unets.unet_2d_blocks import UNetMidBlock2D

        if len(shape) != 2:
            raise UserError(
                f"denoiser {params.name} works on matrices, but the codes have shape {tuple(shape)}: "
                "use representation dense, or denoiser mlp"
            )
        levels = len(params.multipliers)
        rows, columns = padded_size(shape, levels, layout.square)
        channels = [params.width * m for m in params.multipliers]
        groups = math.gcd(32, *channels)
        while groups > 1 and min(channels) < 4 * groups:  # at resolution 1, a group of one value is normalised to 0
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
    """The smallest size that can be halved `levels` - 1 times and holds a matrix of this shape.

    square: the minimum side of a square, or None.
    """
    step = 2 ** (levels - 1)
    if square is not None:
        shape = (max(*shape, square),) * 2
    rows, columns = (math.ceil(n / step) * step for n in shape)
    return rows, columns
