"""The params group `sampling`, separate from `diffusion`: changing it retrains nothing."""

from typing import Annotated

from pydantic import AfterValidator, Field

from ocd_core.diffusion.samplers import SAMPLERS
from ocd_core.strict import StrictModel


class SamplingParams(StrictModel):
    """Drawing Δ (Alg. 2)."""

    sampler: Annotated[str, AfterValidator(SAMPLERS.check)]
    steps: Annotated[int, Field(ge=1, le=10**6)]  # ddim, dpm: how many of the timesteps; ancestral takes all of them
    eta: Annotated[float, Field(ge=0, le=1)]  # ddim: 0 is deterministic after the first noise
    renormalise: bool  # bring a drawn Ω_0 to unit norm before it is scaled
