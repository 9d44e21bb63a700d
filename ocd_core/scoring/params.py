"""The params groups `layer` and `scoring`."""

from typing import Annotated, Literal

from pydantic import Field

from ocd_core.strict import Positive, PositiveInt, StrictModel


class CandidateParams(StrictModel):
    """Which layers can be selected; which layers are scored depends on `names`, but not on `kinds`."""

    names: list[str] | None  # only these are scored; null: every layer of `kinds`
    kinds: Annotated[list[Literal["linear", "conv"]], Field(min_length=1)]


class LayerParams(StrictModel):
    """Which layer moves. `select: auto` takes the candidates by rank; a name overrides rank 1."""

    select: str
    candidates: CandidateParams


class ScoringParams(StrictModel):
    """Layer scores (Eq. 3)."""

    samples: PositiveInt  # how many training samples, a seeded subset
    draws: Annotated[int, Field(ge=10, le=10**5)]  # how many perturbed weights per sample
    noise: Literal["absolute", "relative"]  # relative: `scale` times the layer's rms weight
    scale: Positive  # standard deviation of the perturbation
