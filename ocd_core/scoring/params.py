"""The params groups `layer` and `scoring`."""

from typing import Annotated, Literal

from pydantic import Field

from ocd_core.strict import Count, Positive, PositiveInt, StrictModel

ENTROPY, VALIDATED = "entropy", "validated"


class CandidateParams(StrictModel):
    """Which layers can be selected; which layers are scored depends on `names`, but not on `kinds`."""

    names: list[str] | None  # only these are scored; null: every layer of `kinds`
    kinds: Annotated[list[Literal["linear", "conv"]], Field(min_length=1)]


class ProbeParams(StrictModel):
    """How a candidate layer is probed (`ocd_core.probing`)."""

    samples: Annotated[int, Field(ge=20)]  # at most, of train and of val, each a seeded subset
    components: PositiveInt  # principal components of Δ that are predicted, at most
    updates: Count  # of the network that learns on from the task's loss; 0: there is none


class LayerParams(StrictModel):
    """Which layer moves.

    select: `entropy` takes the candidates by their score (Eq. 3), `validated` by what a probe of each gains on the
    validation split; a layer's name overrides rank 1 of the scores.
    """

    select: str
    candidates: CandidateParams
    probe: ProbeParams

    @property
    def named(self) -> str | None:
        """The layer that `select` names; None if it names a rule."""
        return None if self.select in (ENTROPY, VALIDATED) else self.select


class ScoringParams(StrictModel):
    """Layer scores (Eq. 3)."""

    samples: PositiveInt  # how many training samples, a seeded subset
    draws: Annotated[int, Field(ge=10, le=10**5)]  # how many perturbed weights per sample
    noise: Literal["absolute", "relative"]  # relative: `scale` times the layer's rms weight
    scale: Positive  # standard deviation of the perturbation
