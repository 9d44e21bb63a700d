"""The building blocks of params groups: a strict model, and numbers within bounds."""

from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

T = TypeVar("T", bound=Hashable)
MOST = 10**8  # more of anything is a slip of the keyboard, and would run for years or not fit into any memory
PositiveInt = Annotated[int, Field(ge=1, le=MOST)]
Count = Annotated[int, Field(ge=0, le=MOST)]  # may be none
Width = Annotated[int, Field(ge=1, le=2**16)]  # units or channels of a layer
Depth = Annotated[int, Field(ge=1, le=1000)]  # blocks of a network
Draws = Annotated[int, Field(ge=1, le=10**4)]  # networks for one sample
NonNegative = Annotated[float, Field(ge=0, le=MOST)]
Positive = Annotated[float, Field(gt=0, le=MOST)]
Number = Annotated[float, Field(ge=-MOST, le=MOST)]
Rate = Annotated[float, Field(gt=0, le=1000)]  # of learning
Fraction = Annotated[float, Field(ge=0, lt=1)]


class StrictModel(BaseModel):
    """A group of params: unknown keys, wrong types, NaN and infinity are refused, values cannot change."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _paths(cls, values: Any) -> Any:
        """Text stands for a path where a field is one, because YAML has no paths."""
        if not isinstance(values, dict):
            return values
        kinds = {name: (field.annotation, *get_args(field.annotation)) for name, field in cls.model_fields.items()}
        paths = {name for name, found in kinds.items() if Path in found}
        return {key: Path(v) if key in paths and isinstance(v, str) else v for key, v in values.items()}


def no_bool(value: object) -> object:
    """The value unchanged, before it is compared with numbers, among which true would be 1.

    Raises:
        ValueError: it is true or false.
    """
    if isinstance(value, bool):
        raise ValueError("expected a number, not true or false")
    return value


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


def first_problem(error: ValidationError) -> str:
    """The first of the problems of a validation in one line: its dotted key, if it has one, and what is wrong."""
    first = error.errors(include_url=False)[0]
    reason = str(first["msg"]).removeprefix("Value error, ")
    return ": ".join([*([".".join(map(str, first["loc"]))] if first["loc"] else []), reason])
