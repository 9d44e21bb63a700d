"""`table.json`: what one run scored, as the stage `evaluate` writes it, checked where it is read."""

from pathlib import Path
from typing import Annotated, Any

from pydantic import ConfigDict, Field, ValidationError, model_validator

from ocd_core.artifacts import read_json
from ocd_core.errors import UserError
from ocd_core.evaluation.result import Absent, Result
from ocd_core.provenance import AGAIN
from ocd_core.strict import StrictModel, first_problem


class _Written(StrictModel):
    model_config = ConfigDict(extra="ignore")  # other versions may write more


class _Metric(_Written):
    name: str
    higher_is_better: bool | None
    unit: str
    decimals: Annotated[int, Field(ge=0, le=20)]
    about: str = ""


class _BoundParts(_Written):
    share_seen: float
    seen: float
    unseen: float | None


class _Table(_Written):
    task: str
    seed: Annotated[int, Field(ge=0)]
    rank: Annotated[int, Field(ge=1)]
    layer: str
    metrics: Annotated[list[_Metric], Field(min_length=1)]
    results: Annotated[list[Result], Field(min_length=1)]
    absent: list[Absent] = Field(default_factory=list)
    cost_flops: dict[str, Any] = Field(default_factory=dict)
    remarks: list[str] = Field(default_factory=list)
    bound_parts: _BoundParts | None = None
    groups: int | None = None

    @model_validator(mode="after")
    def _compared_with_the_base(self) -> "_Table":
        first = self.metrics[0].name
        if not any((r.row, r.metric, r.adjusted) == ("base", first, False) for r in self.results):
            raise ValueError(f"it has no {first} of the base")
        if any(r.temperature is not None for r in self.results) and not any(
            r.row == "base" and r.temperature is not None for r in self.results
        ):
            raise ValueError("rows have a temperature, but the base has none")
        return self


def read_result_table(path: Path) -> dict[str, Any]:
    """A table as plain values.

    Raises:
        UserError: the file is missing, or is no such table.
    """
    return checked_table(read_json(path), str(path))


def checked_table(values: Any, where: str) -> dict[str, Any]:
    """The same for values that are read already; where: their origin, for messages.

    Raises:
        UserError: they are no table.
    """
    try:
        _Table.model_validate(values)
    except ValidationError as error:
        raise UserError(f"{where} is damaged: {first_problem(error)}; {AGAIN}") from error
    return dict(values)
