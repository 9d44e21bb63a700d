"""Small U-Nets by name."""

from torch import nn

from ocd_core.diffusion.denoisers import build_denoiser
from tests.support.params import denoiser_params


def small(name: str, shape: tuple[int, int], **changes) -> nn.Module:
    """Three levels of few channels."""
    params = denoiser_params(**{"name": name, "width": 8, "depth": 1, "multipliers": [1, 1, 2], **changes})
    return build_denoiser(params, shape, 12)


def attentions(module: nn.Module) -> int:
    """How many attention layers a part of a U-Net has."""
    return sum(type(m).__name__ == "Attention" for m in module.modules())
