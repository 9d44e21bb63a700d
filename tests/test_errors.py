"""A user's mistake, wherever it is found: pydantic reports it beside its own."""

import pytest
from pydantic import ValidationError, field_validator

from ocd_core.errors import UserError
from ocd_core.strict import StrictModel


class Group(StrictModel):
    name: str
    steps: int

    @field_validator("name")
    @classmethod
    def _known(cls, value: str) -> str:
        raise UserError(f"unknown name {value!r}")


def test_a_user_error_within_params_is_one_of_their_problems() -> None:
    with pytest.raises(ValidationError) as error:
        Group(name="x", steps="y")
    found = {problem["loc"]: problem["msg"] for problem in error.value.errors()}
    assert found[("name",)] == "Value error, unknown name 'x'"
    assert ("steps",) in found
