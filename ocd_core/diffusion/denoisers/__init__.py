"""Denoisers ε_Ω by name: `name` is the function that `ocd_core.diffusion.denoisers.<name>` calls `build`.

Your own package can add one, a `Build`, with an entry point in the group `ocd.denoisers`.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from ocd_core.registry import Registry

if TYPE_CHECKING:
    from torch import nn

    from ocd_core.diffusion.params import DenoiserParams

    Build = Callable[[DenoiserParams, Sequence[int], int], nn.Module]

DENOISERS = Registry("denoiser", __name__, "build", "ocd.denoisers")


def build_denoiser(params: "DenoiserParams", shape: Sequence[int], embedding: int) -> "nn.Module":
    """A denoiser with fresh weights for codes of this shape: (Ω_t (N, *shape), e (N, E)) -> (N, *shape).

    Raises:
        UserError: unknown name, or a U-Net for codes that are not matrices.
    """
    build: Build = DENOISERS.load(params.name)
    return build(params, shape, embedding)
