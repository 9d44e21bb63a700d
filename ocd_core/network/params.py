"""The params group `base`."""

from typing import Any

from ocd_core.strict import NonNegative, Positive, PositiveInt, StrictModel


class ModelParams(StrictModel):
    """A base network: `name` in `ocd_core.models.MODELS` or `module:Class`, and its constructor's arguments."""

    name: str
    args: dict[str, Any]


class BaseParams(StrictModel):
    """Training of the base network by Adam with early stopping on the validation loss, or a given checkpoint."""

    model: ModelParams
    checkpoint: str | None  # a file of weights to use as they are; null: train
    epochs: PositiveInt  # at most
    patience: PositiveInt  # epochs without a better validation loss before it stops
    batch_size: PositiveInt
    lr: Positive
    weight_decay: NonNegative
