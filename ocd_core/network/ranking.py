"""`layers.json`: which layer a run moves at each rank, as the stage `score_layers` writes it."""

from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, ValidationError

from ocd_core.artifacts import read_json
from ocd_core.errors import UserError
from ocd_core.provenance import AGAIN
from ocd_core.strict import StrictModel, first_problem

RANKING = "layers.json"


class Ranking(StrictModel):
    """scores: of all layers. used: {rank: layer}, ranks from "1". warning: of a close call, or None."""

    scores: list[dict[str, Any]] = Field(default_factory=list)
    used: Annotated[dict[Annotated[str, Field(pattern=r"^[1-9]\d*$")], str], Field(min_length=1)]
    warning: str | None = None


def read_ranking(layers: Path) -> Ranking:
    """The ranking in the folder of a run's layers.

    Raises:
        UserError: the file is missing, or is no such ranking.
    """
    path = layers / RANKING
    try:
        found = Ranking.model_validate(read_json(path))
    except ValidationError as error:
        raise UserError(f"{path} is damaged: {first_problem(error)}; {AGAIN}") from error
    if "1" not in found.used:
        raise UserError(f"{path} is damaged: it has no layer of rank 1; {AGAIN}")
    return found
