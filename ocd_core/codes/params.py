"""The params of `diffusion.representation`."""

from typing import Annotated

from pydantic import AfterValidator

from ocd_core.codes.representations import REPRESENTATIONS
from ocd_core.strict import PositiveInt, StrictModel


class RepresentationParams(StrictModel):
    """The space in which Δ is generated."""

    name: Annotated[str, AfterValidator(REPRESENTATIONS.check)]
    components: PositiveInt  # pca only
