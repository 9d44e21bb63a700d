"""The building blocks of params groups: a strict model, and numbers within bounds."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

PositiveInt = Annotated[int, Field(ge=1)]
NonNegative = Annotated[float, Field(ge=0)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, lt=1)]


class StrictModel(BaseModel):
    """A group of params: unknown keys and wrong types are refused, values cannot change."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)
