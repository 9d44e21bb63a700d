"""`unet_paper`: as in section 3.3, padded to a square, attention at each level, two attentions in the bottleneck."""

from collections.abc import Sequence

from torch import nn

from ocd_core.diffusion.denoisers.base import Layout, UNetDenoiser
from ocd_core.diffusion.params import DenoiserParams


def build(params: DenoiserParams, shape: Sequence[int], embedding: int) -> nn.Module:
    """See `ocd_core.diffusion.denoisers.build_denoiser`."""
    return UNetDenoiser(shape, embedding, params, Layout(square=1, attention="all", bottleneck=2))
