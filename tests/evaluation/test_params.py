"""Params of rows: each row's own, in its own group; and which rows there may be."""

import re
from typing import Any

import pytest

from ocd_core.config import parse_params
from ocd_core.errors import UserError
from ocd_core.evaluation.regression import RidgeParams
from ocd_core.evaluation.rows import ROWS
from tests.support.toy import toy_params


@pytest.mark.parametrize(
    ("group", "changes", "message"),
    [
        ("evaluate", {"rows": ["ocd"]}, r"rows must name 'base'"),
        ("evaluate", {"rows": ["base", "ocd", "ocd"]}, r"rows names 'ocd' twice"),
        ("evaluate", {"draws": [3, 5, 3]}, r"draws names 3 twice"),
        ("evaluate", {"draws": []}, r"evaluate\.draws: "),
        ("evaluate", {"draws": 5}, r"evaluate\.draws: "),
        ("evaluate", {"draws": [0]}, r"evaluate\.draws\.0: "),
        ("evaluate", {"rows": ["base", "magic"]}, r"evaluate\.rows\.1: unknown row 'magic'; known are another_base, b"),
        (
            "evaluate",
            {"rows": ["base", "tests.support.toy:ToyTask"]},
            r"'tests\.support\.toy:ToyTask' is not a subclass of .*Row",
        ),
        ("controls", {"fit": ["ridge", "ridge"]}, r"fit names 'ridge' twice"),
        ("controls", {"fit": ["magic"]}, r"controls\.fit\.0: unknown row 'magic'; known are another_base, b"),
        (
            "controls",
            {"fit": ["ocd"]},
            r"'ocd' has nothing to fit; rows to fit are another_base, base_further, base_further_aug",
        ),
        ("controls", {"fit": []}, r"evaluate\.rows names 'base_further', which controls\.fit does not"),
        ("controls", {"ocd_gain": {"gains": []}}, r"controls\.ocd_gain\.gains: "),
        ("controls", {"ocd_gain": {"gains": [1.0], "gain": 2}}, r"controls\.ocd_gain\.gain: unknown key"),
        ("controls", {"gains": [1.0]}, r"controls\.gains: unknown key; remove it or correct its spelling"),
        ("controls", {"mean_delta": {"a": 1}}, r"controls\.mean_delta: unknown key"),
        ("controls", {"components": 0}, r"controls\.components: "),
        ("scale", {"gain": "validated"}, r"which needs the control ocd_gain; add it to controls\.fit"),
    ],
)
def test_impossible_rows_are_refused(group: str, changes: dict[str, Any], message: str) -> None:
    values = toy_params()
    values[group] = {**values[group], **changes}
    if group == "scale":
        values["controls"]["fit"] = [row for row in values["controls"]["fit"] if row != "ocd_gain"]
        values["evaluate"]["rows"] = [row for row in values["evaluate"]["rows"] if row != "ocd_gain"]
    with pytest.raises(UserError, match=message) as refused:
        parse_params(values, "x")
    assert "\n" not in str(refused.value)


def test_the_error_names_all_known_rows() -> None:
    values = toy_params()
    values["evaluate"]["rows"] = ["base", "magic"]
    with pytest.raises(UserError) as refused:
        parse_params(values, "x")
    known = re.search(r"known are ([\w, ]+), or name", str(refused.value))
    assert known
    assert set(known[1].split(", ")) >= {*ROWS.own(), "ocd_ensemble", "bound"}


def test_a_fitted_row_needs_its_params_and_another_may_lack_them() -> None:
    values = toy_params()
    del values["controls"]["ridge"]
    with pytest.raises(UserError, match=r"controls\.fit names 'ridge', whose params are the group controls\.ridge"):
        parse_params(values, "x")
    values["controls"]["fit"].remove("ridge")
    values["evaluate"]["rows"].remove("ridge")
    params = parse_params(values, "x")
    assert params.controls.of_row("ridge") is None
    values["controls"]["ridge"] = toy_params()["controls"]["ridge"]  # present, and used by nobody
    assert isinstance(parse_params(values, "x").controls.of_row("ridge"), RidgeParams)


def test_rows_params_are_typed_and_dumped() -> None:
    values = toy_params()
    controls = parse_params(values, "x").controls
    assert controls.of_row("ocd_gain").gains == [0.5, 1.0]
    assert controls.of_row("mean_delta") is None
    assert controls.model_dump(mode="json") == values["controls"]
