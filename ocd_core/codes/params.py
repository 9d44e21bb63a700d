"""The params of `diffusion.representation`."""

from typing import Annotated

from pydantic import AfterValidator

from ocd_core.codes.representations import REPRESENTATIONS
from ocd_core.strict import StrictModel, Width


class RepresentationParams(StrictModel):
    """The space in which Δ is generated."""

    name: Annotated[str, AfterValidator(REPRESENTATIONS.check)]
    components: Width  # pca only
