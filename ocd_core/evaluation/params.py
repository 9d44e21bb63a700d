"""The params groups `controls` and `evaluate`."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, ConfigDict, Field, create_model, model_validator

from ocd_core.errors import UserError
from ocd_core.evaluation.rows import ROWS, row_class
from ocd_core.strict import Draws, StrictModel, Width, repeated


def _known(name: str) -> str:
    row_class(name)
    return name


RowName = Annotated[str, AfterValidator(_known)]


def _fitted(name: str) -> str:
    if not row_class(name).fitted:
        known = ", ".join(n for n in ROWS.own() if row_class(n).fitted)
        raise UserError(f"the row {name!r} has nothing to fit; rows to fit are {known}")
    return name


class ControlsParams(StrictModel):
    """Rows that are fitted before the evaluation, on train and val only, and the params of rows.

    If a row has its own params (`Row.Params`, in the row's file), they are the group `controls.<row>`. The group must
    be present if the row is in `fit`, or in `evaluate.rows` without being fitted; otherwise it may be absent.
    """

    model_config = ConfigDict(extra="allow")  # the groups of rows, each checked by its row's model

    fit: list[Annotated[RowName, AfterValidator(_fitted)]]  # in this order
    components: Width  # of Δ, for rows that regress it, if the diffusion's representation is dense

    @model_validator(mode="before")
    @classmethod
    def _groups_of_rows(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        own = {key: value for key, value in values.items() if key in cls.model_fields}
        groups = {key: value for key, value in values.items() if key not in own}
        names = ROWS.names()  # reads what packages are installed, which takes a while
        known = [key for key in groups if ":" in key or key in names]
        models = {key: model for key in known if (model := row_class(key).Params) is not None}
        fields: dict[str, Any] = {key: (model, ...) for key, model in models.items()}
        checked = create_model("Groups", __base__=StrictModel, **fields).model_validate(groups)
        return {**own, **{key: getattr(checked, key) for key in groups}}

    @model_validator(mode="after")
    def _complete(self) -> "ControlsParams":
        for name in self.fit:
            self.require(name, "controls.fit")
        _no_repeats("fit", self.fit)
        return self

    def of_row(self, name: str) -> StrictModel | None:
        """A row's own params, or None if they are not given."""
        found: StrictModel | None = (self.model_extra or {}).get(name)
        return found

    def require(self, name: str, where: str) -> None:
        """Check that a row has its params.

        Raises:
            ValueError: it needs params, but they are not given.
        """
        if row_class(name).Params is not None and self.of_row(name) is None:
            raise ValueError(f"{where} names {name!r}, whose params are the group controls.{name}; add it")

    def serve(self, rows: Sequence[str]) -> None:
        """Check that the rows of `evaluate.rows` are fitted, if they must be, and have their params.

        Raises:
            ValueError: names the first row that lacks something.
        """
        for name in rows:
            if row_class(name).fitted and name not in self.fit:
                raise ValueError(f"evaluate.rows names {name!r}, which controls.fit does not; add it there")
            self.require(name, "evaluate.rows")


def _no_repeats(key: str, names: Sequence[str | int]) -> None:
    again = repeated(names)
    if again:
        raise ValueError(f"{key} names {again[0]!r} twice")


class EvaluateParams(StrictModel):
    """Evaluation on the test split."""

    rows: list[RowName]  # of the table, in this order; must include base
    # networks of the rows with several draws; each number gives a row of its own
    draws: Annotated[list[Draws], Field(min_length=1)]
    precision: Literal["float32", "float64"]  # of the network from the moved layer on
    bootstrap: Annotated[int, Field(ge=100, le=10**6)]

    @model_validator(mode="after")
    def _with_base(self) -> "EvaluateParams":
        if "base" not in self.rows:
            raise ValueError("rows must name 'base', which all others are compared with")
        _no_repeats("draws", self.draws)
        _no_repeats("rows", self.rows)
        return self
