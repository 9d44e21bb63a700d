"""The table of costs."""

from ocd_core.report.run_costs import _fitted


def test_the_time_to_fit_is_that_of_the_row_its_family_or_its_run() -> None:
    seconds = {"ocd": 30.0, "ocd_tuned": 37.0, "ridge": 1.5, "deep_ensemble": 4.0}
    rows = ("ridge", "ocd_mean_network", "ocd_tuned_ensemble", "deep_ensemble_5", "base", "somebody_elses")
    assert [_fitted(row, seconds) for row in rows] == [1.5, 30.0, 37.0, 4.0, None, None]
