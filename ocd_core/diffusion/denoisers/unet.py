"""`unet`: convolutions over the matrix, padded as its levels need, with attention at the lowest level."""

from collections.abc import Sequence

from torch import nn

from ocd_core.diffusion.denoisers.base import Layout, UNetDenoiser
from ocd_core.diffusion.params import DenoiserParams


def build(params: DenoiserParams, shape: Sequence[int], embedding: int) -> nn.Module:
    """See `ocd_core.diffusion.denoisers.build_denoiser`."""
    return UNetDenoiser(shape, embedding, params, Layout(square=None, attention="lowest", bottleneck=1))
