"""The params of `diffusion.representation`."""

from typing import Annotated, Literal

from pydantic import AfterValidator, model_validator

from ocd_core.codes.representations import REPRESENTATIONS
from ocd_core.strict import StrictModel, Width


class RepresentationParams(StrictModel):
    """The space in which Δ is generated."""

    name: Annotated[str, AfterValidator(REPRESENTATIONS.check)]
    components: Width  # pca only
    metric: Literal["euclidean", "kfac"]  # pca only: whose largest components are kept

    @model_validator(mode="after")
    def _possible(self) -> "RepresentationParams":
        if self.metric != "euclidean" and self.name != "pca":
            raise ValueError(
                f"metric {self.metric} chooses principal components, which representation {self.name} has not; use "
                "representation pca, or metric euclidean"
            )
        return self
