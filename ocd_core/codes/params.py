"""The params of `diffusion.representation`."""

from typing import Literal

from ocd_core.strict import PositiveInt, StrictModel


class RepresentationParams(StrictModel):
    """The space in which Δ is generated."""

    name: Literal["dense", "factored", "pca"]
    components: PositiveInt  # pca only
