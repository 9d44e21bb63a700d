import pytest
from pydantic import ValidationError

from tests.support.params import overfit_params as params
from tests.support.params import refine_params


def test_only_training_samples_are_repeated() -> None:
    p = params(replicas=3)
    assert [p.of_split(s).replicas for s in ("train", "val", "test")] == [3, 1, 1]
    assert p.of_split("val") == params(replicas=1)


@pytest.mark.parametrize(
    "change", [{"optimizer": "lbfgs"}, {"steps": 0}, {"lr": float("inf")}, {"layout": "sparse"}, {"tolerance": 0.0}]
)
def test_what_is_refused(change) -> None:
    with pytest.raises(ValidationError, match=next(iter(change))):
        params(**change)


def test_the_factored_layout_cannot_hold_refined_deltas() -> None:
    assert params(layout="factored", refine=refine_params(steps=0)).all_steps == 2
    assert params(refine=refine_params(steps=3)).all_steps == 5
    with pytest.raises(ValidationError, match=r"layout factored keeps gradients, from which a Δ after refine\.steps"):
        params(layout="factored", refine=refine_params())
