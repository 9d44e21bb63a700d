import pytest
from pydantic import ValidationError

from ocd_core.scoring.params import LayerParams, ScoringParams

SCORING = {"samples": 10, "draws": 10, "noise": "absolute", "scale": 0.1}


def layer(kinds):
    candidates = {"names": None, "kinds": kinds}
    return {"select": "entropy", "candidates": candidates, "probe": {"samples": 20, "components": 2, "updates": 50}}


@pytest.mark.parametrize(
    "change", [{"draws": 9}, {"samples": 0}, {"noise": "uniform"}, {"scale": 0.0}, {"scale": float("inf")}]
)
def test_what_scoring_refuses(change):
    assert ScoringParams(**SCORING).draws == 10
    with pytest.raises(ValidationError, match=next(iter(change))):
        ScoringParams(**{**SCORING, **change})


def test_candidates_are_named_or_of_a_kind():
    chosen = LayerParams.model_validate(layer(["conv"]))
    assert chosen.candidates.kinds == ["conv"]
    for kinds in ([], ["attention"]):
        with pytest.raises(ValidationError, match="kinds"):
            LayerParams.model_validate(layer(kinds))
