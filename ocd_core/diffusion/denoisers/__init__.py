"""Denoisers ε_Ω by name: `name` is the function that `ocd_core.diffusion.denoisers.<name>` calls `build`.

Your own package can add one, a `Build`, with an entry point in the group `ocd.denoisers`.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from ocd_core.registry import Registry

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ocd_core.diffusion.params import DenoiserParams

    AtTimesteps = Callable[[Tensor], list[Callable[[Tensor], Tensor]]]
    Build = Callable[[DenoiserParams, Sequence[int], int], nn.Module]

DENOISERS = Registry("denoiser", __name__, "build", "ocd.denoisers")


def build_denoiser(params: "DenoiserParams", shape: Sequence[int], embedding: int) -> "nn.Module":
    """A denoiser with fresh weights for codes of this shape: (Ω_t (N, *shape), e (N, E)) -> (N, *shape).

    Raises:
        UserError: unknown name, or a U-Net for codes that are not matrices.
    """
    build: Build = DENOISERS.load(params.name)
    return build(params, shape, embedding)


def for_drawing(denoiser: "nn.Module") -> "AtTimesteps":
    """A denoiser in eval mode with its present weights, for S values of e and the same N samples.

    The result maps e (S, N, E) to S functions from Ω_t (N, *shape) to the output. A denoiser may have a method
    `for_drawing()` that gives it, to compute at once what depends on e alone.
    """
    own: Callable[[], AtTimesteps] | None = getattr(denoiser, "for_drawing", None)
    if own is not None:
        return own()
    return lambda e_SNE: [_at(denoiser, e_NE) for e_NE in e_SNE]


def _at(denoiser: "nn.Module", e_NE: "Tensor") -> "Callable[[Tensor], Tensor]":
    # by position: a denoiser of a user's own may name its arguments as it likes
    return lambda omega_t: denoiser(omega_t, e_NE)
