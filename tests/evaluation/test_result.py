import pytest
from pydantic import ValidationError

from ocd_core.evaluation.result import Absent, Result, corrected
from tests.support.tables import result


def test_a_result_survives_json() -> None:
    found = Result(**result("ocd", 0.4, temperature=1.25))
    assert Result.model_validate_json(found.model_dump_json()) == found


@pytest.mark.parametrize("change", [{"mean": "0.4"}, {"n": 2.5}, {"loss": 1.0}])
def test_what_is_not_a_result_is_refused(change: dict) -> None:
    with pytest.raises(ValidationError):
        Result(**{**result("ocd", 0.4), **change})


def test_a_row_is_absent_for_one_of_three_reasons() -> None:
    for status in ("left out", "failed", "not run"):
        assert Absent(row="ocd", status=status, why="it is a test").status == status
    with pytest.raises(ValidationError):
        Absent(row="ocd", status="forgotten", why="it is a test")


def test_p_is_corrected_over_the_rows_of_a_metric() -> None:
    rows = [
        result("base", 0.5), result("a", 0.4, p=0.01), result("b", 0.4, p=0.04), result("a", 0.4, p=0.04, metric="mae")
    ]  # fmt: skip
    assert [r.p_holm for r in corrected([Result(**r) for r in rows])] == [None, 0.02, 0.04, 0.04]


def test_results_after_a_temperature_are_corrected_apart() -> None:
    rows = [result("a", 0.4, p=0.04), result("a", 0.4, p=0.04, temperature=1.5), result("b", 0.4, p=0.01)]
    assert [r.p_holm for r in corrected([Result(**r) for r in rows])] == [0.04, 0.04, 0.02]


def test_a_temperature_or_noise_adjusts() -> None:
    found = [Result(**result("a", 0.4, **values)).adjusted for values in ({}, {"temperature": 1.0}, {"noise": 0.0})]
    assert found == [False, True, True]
