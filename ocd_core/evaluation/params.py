"""The params groups `controls` and `evaluate`."""

from collections.abc import Sequence
from typing import Annotated, Literal, TypeVar, get_args

from pydantic import Field, model_validator

from ocd_core.strict import Positive, PositiveInt, StrictModel
from ocd_core.training.params import SmallNetworkParams

_Model = TypeVar("_Model", bound=StrictModel)


class FurtherParams(StrictModel):
    """`base_further`: the base trained further, all layers, from its own weights with a new Adam."""

    epochs: PositiveInt | None  # at most; null: as many as cost what OCD's training did
    patience: PositiveInt | None  # epochs without a better validation loss before it stops; null: it does not stop
    lr: Positive


class RidgeParams(StrictModel):
    """`ridge`: kernel ridge regression of Δ on I(x); width and penalty by cross-validation on training samples."""

    rows: Annotated[int, Field(ge=4)]  # rows of the training store at most, a seeded subset of its samples
    folds: Annotated[int, Field(ge=2)]  # replicas of a sample are in one fold
    widths: Annotated[list[Positive], Field(min_length=1)]  # of the RBF, times the median distance of samples
    penalties: Annotated[list[Positive], Field(min_length=1)]


class HypernetworkParams(SmallNetworkParams):
    """`hypernetwork`: a network from I(x) to Δ, trained end to end on the task's own loss."""


FittedRow = Literal["base_further", "mean_delta", "ridge", "hypernetwork", "ocd_gain"]


class ControlsParams(StrictModel):
    """What could explain a gain without diffusion, fitted on train and val only."""

    fit: list[FittedRow]  # which of them
    components: PositiveInt  # of Δ, for ridge and hypernetwork where the diffusion's representation is dense
    further: FurtherParams
    ridge: RidgeParams
    hypernetwork: HypernetworkParams
    # ocd_gain (and scale.gain): factors of a drawn Δ to choose from on val
    gains: Annotated[list[Positive], Field(min_length=1)]

    @staticmethod
    def fittable() -> tuple[str, ...]:
        """The rows that are fitted before evaluation."""
        return get_args(FittedRow)

    @model_validator(mode="after")
    def _each_once(self) -> "ControlsParams":
        return _no_repeats(self, "fit", self.fit)


def _no_repeats(model: _Model, key: str, names: Sequence[str]) -> _Model:
    again = [n for i, n in enumerate(names) if n in names[:i]]
    if again:
        raise ValueError(f"{key} names {again[0]!r} twice")
    return model


ResultRow = Literal[
    "base", "base_further", "mean_delta", "neighbour", "ridge", "hypernetwork", "ocd_no_scale", "ocd", "ocd_gain",
    "ocd_mean_network", "ocd_ensemble", "bound",
]  # fmt: skip


class EvaluateParams(StrictModel):
    """Evaluation on the test split."""

    rows: list[ResultRow]  # of the table, in this order; base is one of them
    draws: PositiveInt  # networks of the ensemble
    precision: Literal["float32", "float64"]  # of the network from the moved layer on
    bootstrap: Annotated[int, Field(ge=100)]

    @model_validator(mode="after")
    def _with_base(self) -> "EvaluateParams":
        if "base" not in self.rows:
            raise ValueError("rows must name 'base', which all others are compared with")
        return _no_repeats(self, "rows", self.rows)
