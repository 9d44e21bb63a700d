"""The params group `overfit`."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from ocd_core.samples import SplitName
from ocd_core.strict import MOST, Positive, PositiveInt, Rate, StrictModel, Width


class RefineParams(StrictModel):
    """Damped Gauss–Newton steps after the gradient steps, in principal components of Δ."""

    steps: Annotated[int, Field(ge=0, le=1000)]  # 0: none, and the rest has no effect
    components: Width  # of the Δ of training samples; of each Δ, the rest is left out
    damping: Positive  # a share of the mean curvature of training samples' losses
    samples: Annotated[int, Field(ge=2, le=MOST)]  # at most, of train (seeded), for the components
    inputs: PositiveInt  # if a step draws its inputs: of how many steps they give the curvature


NOT_REFINED = RefineParams(steps=0, components=1, damping=1.0, samples=2, inputs=1)


class OverfitParams(StrictModel):
    """Overfitting of each sample separately (Eq. 1)."""

    optimizer: Literal["sgd", "adam"]
    lr: Rate
    steps: Annotated[int, Field(ge=1, le=10**6)]  # with until_converged: at most
    until_converged: bool  # a sample stops when a step lowers its loss by less than `tolerance` of it
    tolerance: Positive
    replicas: Annotated[int, Field(ge=1, le=10**5)]  # repetitions of each training sample, if a step draws its inputs
    precision: Literal["float32", "float64"]  # of the network from the moved layer on, while overfitting
    layout: Literal["dense", "factored"]  # what the store keeps
    refine: RefineParams
    memory_mb: PositiveInt  # limit of the working set of a batch
    shard_mb: PositiveInt  # uncompressed size of a shard

    def of_split(self, split: SplitName) -> "OverfitParams":
        """The same for one split: only training samples are repeated."""
        return self if split == "train" else self.model_copy(update={"replicas": 1})

    @property
    def all_steps(self) -> int:
        """The number of steps after which the store keeps the loss."""
        return self.steps + self.refine.steps

    @model_validator(mode="after")
    def _possible(self) -> "OverfitParams":
        if self.refine.steps and self.layout == "factored":
            raise ValueError(
                "layout factored keeps gradients, from which a Δ after refine.steps cannot be rebuilt; use layout "
                "dense, or refine.steps 0"
            )
        return self
