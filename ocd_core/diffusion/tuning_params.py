"""The params group `tuning`."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from ocd_core.diffusion.sampling_params import SamplingParams
from ocd_core.strict import Count, Draws, Fraction, NonNegative, Positive, PositiveInt, Rate, StrictModel, distinct


class TuningParams(StrictModel):
    """Further training of the diffusion model on the task's own loss under θ + Δ."""

    updates: Count  # at most, with each learning rate; 0: the model stays as it is
    through: Literal["last", "sampler"]  # a draw while tuning and afterwards: one step from t = T, or a short DDIM
    steps: Draws  # sampler: of the DDIM
    draws: Draws  # K outputs that are combined before the loss
    delta_weight: NonNegative  # of the diffusion's own loss (Eq. 7), which is added to the task's
    delta_timesteps: Literal["all", "late"]  # on which that loss is taken; late: t >= T / 2
    lrs: Annotated[list[Rate], Field(min_length=1), AfterValidator(distinct)]  # the best on val is kept
    batch_size: PositiveInt  # samples per update
    accumulate: PositiveInt  # parts that a batch is cut into to save memory
    ema: Fraction
    clip: Positive | None  # of the gradient's norm; null: none
    validate_every: PositiveInt
    patience: PositiveInt  # validations without a better loss before it stops

    @property
    def sampler_steps(self) -> int:
        """Calls of the denoiser for a draw."""
        return 1 if self.through == "last" else self.steps

    def sampling(self, sampling: SamplingParams) -> SamplingParams:
        """How the tuned model draws: as it was tuned. `sampling` of the untuned model says whether to renormalise."""
        return SamplingParams(sampler="ddim", steps=self.sampler_steps, eta=0.0, renormalise=sampling.renormalise)
