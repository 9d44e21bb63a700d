"""Groups of params refuse what is not said of them; bounds against plain comparisons."""

import math
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import TypeAdapter, ValidationError, model_validator

from ocd_core.strict import (
    MOST,
    Fraction,
    NonNegative,
    Positive,
    PositiveInt,
    StrictModel,
    Width,
    distinct,
    first_problem,
)


class Group(StrictModel):
    steps: PositiveInt
    lr: Positive = 0.1


def takes(kind: object, value: object) -> bool:
    try:
        TypeAdapter(kind).validate_python(value, strict=True)
    except ValidationError:
        return False
    return True


@given(value=st.floats(allow_nan=False))
@example(0.0)
@example(-0.0)
@example(1.0)
@example(math.inf)
@example(1e8)
@example(1.1e8)
def test_bounds_of_numbers(value: float) -> None:
    assert takes(Positive, value) == (0 < value <= MOST)
    assert takes(NonNegative, value) == (0 <= value <= MOST)
    assert takes(Fraction, value) == (0 <= value < 1)


@given(value=st.integers(-3, 3))
def test_whole_numbers_start_at_one(value: int) -> None:
    assert takes(PositiveInt, value) == (value >= 1)


@pytest.mark.parametrize("value", ["3", 3.0, True, None])
def test_nothing_is_converted(value: object) -> None:
    with pytest.raises(ValidationError, match="steps"):
        Group(steps=value)


def test_a_value_that_occurs_twice_is_named() -> None:
    assert distinct([3, 1]) == [3, 1]
    with pytest.raises(ValueError, match="'a' is named twice"):
        distinct(["b", "a", "b", "a", "a"][1:])


def test_unknown_keys_are_refused() -> None:
    with pytest.raises(ValidationError, match=r"stepz\n.*Extra inputs are not permitted"):
        Group(steps=1, stepz=2)


def test_values_cannot_change() -> None:
    group = Group(steps=1)
    with pytest.raises(ValidationError, match="frozen"):
        group.steps = 2
    assert group == Group(steps=1, lr=0.1)


def test_text_stands_for_a_path() -> None:
    class WithPath(StrictModel):
        path: Path
        other: Path | None
        name: str

    found = WithPath.model_validate({"path": "data/raw", "other": None, "name": "data/raw"})
    assert (found.path, found.other, found.name) == (Path("data/raw"), None, "data/raw")
    assert found.model_dump(mode="json")["path"] == "data/raw"
    with pytest.raises(ValidationError):
        WithPath.model_validate({"path": 3, "other": None, "name": "x"})


def test_the_first_problem_in_words() -> None:
    class Sizes(StrictModel):
        width: Width

        @model_validator(mode="after")
        def _even(self) -> "Sizes":
            if self.width % 2:
                raise ValueError("it is odd")
            return self

    class Outer(StrictModel):
        sizes: list[Sizes]

    for values, words in (
        ({"sizes": [{"width": 2}, {"width": 0}]}, "sizes.1.width: Input should be greater than or equal to 1"),
        ({"sizes": [{"width": 3}]}, "sizes.0: it is odd"),
        ([], "Input should be a valid dictionary or instance of Outer"),
    ):
        with pytest.raises(ValidationError) as error:
            Outer.model_validate(values)
        assert first_problem(error.value) == words
