"""The params group `base`."""

import math
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, model_validator

from ocd_core.strict import MOST, Fraction, NonNegative, PositiveInt, Rate, StrictModel


def _plain_numbers(args: dict[str, Any]) -> dict[str, Any]:
    """The arguments unchanged.

    Raises:
        ValueError: a number in them is not finite, or larger than a network's can be.
    """
    waiting: list[Any] = [args]
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            waiting.extend(value.values())
        elif isinstance(value, list):
            waiting.extend(value)
        elif isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"{value} is not finite")
        elif isinstance(value, int) and abs(value) > MOST:
            raise ValueError(f"a number is larger than {MOST:,}")
    return args


ModelArgs = Annotated[dict[str, Any], AfterValidator(_plain_numbers)]


class ModelParams(StrictModel):
    """A base network: a name that `ocd_core.models.MODELS` knows, or `module:Class`; its constructor's arguments."""

    name: str
    args: ModelArgs


class BaseParams(StrictModel):
    """Training of the base network with early stopping on the validation loss, or given weights."""

    model: ModelParams
    checkpoint: str | None  # path of weights to use unchanged, where `{seed}` stands for the run's seed; null: train
    epochs: PositiveInt  # at most
    patience: PositiveInt  # epochs without a better validation loss before it stops
    batch_size: PositiveInt
    optimizer: Literal["adam", "adamw", "sgd"]
    lr: Rate
    weight_decay: NonNegative
    momentum: Fraction  # sgd only
    nesterov: bool  # sgd with momentum only
    lr_schedule: Literal["constant", "cosine", "steps"]  # cosine: down to 0 at the last epoch
    lr_steps: list[PositiveInt]  # steps: after each of these epochs, lr is multiplied by lr_factor
    lr_factor: Fraction
    warmup: NonNegative  # epochs (may be a fraction) over which lr rises from 0
    label_smoothing: Fraction  # of the loss that the base is trained on, for a task with classes

    def shortened(self, epochs: int, **others: Any) -> "BaseParams":
        """The same for another number of epochs, without a checkpoint, and with `others` replaced.

        The learning rate rises and falls in the same shares of the training, in fractions of epochs if need be: a rise
        of one epoch, meant for twenty, would fill half of a training of two.
        """
        share = epochs / self.epochs
        scaled = {"warmup": self.warmup * share, "lr_steps": [step * share for step in self.lr_steps]}
        return self.model_copy(update={"checkpoint": None, "epochs": epochs, **scaled, **others})

    @model_validator(mode="after")
    def _possible(self) -> "BaseParams":
        if self.optimizer != "sgd" and self.momentum:
            raise ValueError(f"momentum is for optimizer sgd; set it to 0 for {self.optimizer}")
        if self.nesterov and not self.momentum:
            raise ValueError("nesterov needs optimizer sgd with a momentum above 0; set nesterov to false")
        if bool(self.lr_steps) != (self.lr_schedule == "steps"):
            raise ValueError("lr_steps lists epochs for lr_schedule steps, and is [] for the other schedules")
        return self
