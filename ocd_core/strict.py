"""The building blocks of params groups: a strict model, and numbers within bounds."""

from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator

T = TypeVar("T", bound=Hashable)
PositiveInt = Annotated[int, Field(ge=1)]
NonNegative = Annotated[float, Field(ge=0)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, lt=1)]


class StrictModel(BaseModel):
    """A group of params: unknown keys and wrong types are refused, values cannot change."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    @model_validator(mode="before")
    @classmethod
    def _paths(cls, values: Any) -> Any:
        """Text stands for a path where a field is one, because YAML has no paths."""
        if not isinstance(values, dict):
            return values
        kinds = {name: (field.annotation, *get_args(field.annotation)) for name, field in cls.model_fields.items()}
        paths = {name for name, found in kinds.items() if Path in found}
        return {key: Path(v) if key in paths and isinstance(v, str) else v for key, v in values.items()}


def distinct(values: list[T]) -> list[T]:
    """The values unchanged; for the validation of params.

    Raises:
        ValueError: one occurs twice.
    """
    again = repeated(values)
    if again:
        raise ValueError(f"{again[0]!r} is named twice")
    return values


def repeated(values: Sequence[T]) -> list[T]:
    """The values that an earlier one equals, in order."""
    return [value for i, value in enumerate(values) if value in values[:i]]
