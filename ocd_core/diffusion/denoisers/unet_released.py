"""`unet_released`: as in the authors' code, padded to a square of at least 128, attention at resolution 16 and in the
bottleneck.
"""

from collections.abc import Sequence

from torch import nn

from ocd_core.diffusion.denoisers.base import Layout, UNetDenoiser
from ocd_core.diffusion.params import DenoiserParams


def build(params: DenoiserParams, shape: Sequence[int], embedding: int) -> nn.Module:
    """See `ocd_core.diffusion.denoisers.build_denoiser`."""
    return UNetDenoiser(shape, embedding, params, Layout(square=128, attention="16", bottleneck=1))
