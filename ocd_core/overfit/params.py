"""The params group `overfit`."""

from typing import Annotated, Literal

from pydantic import Field

from ocd_core.samples import SplitName
from ocd_core.strict import Positive, PositiveInt, Rate, StrictModel


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
    memory_mb: PositiveInt  # limit of the working set of a batch
    shard_mb: PositiveInt  # uncompressed size of a shard

    def of_split(self, split: SplitName) -> "OverfitParams":
        """The same for one split: only training samples are repeated."""
        return self if split == "train" else self.model_copy(update={"replicas": 1})
