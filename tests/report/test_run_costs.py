"""The table of costs."""

from ocd_core.report.run_costs import _fitted


def test_the_time_to_fit_is_that_of_the_row_its_family_or_its_run() -> None:
    seconds = {"ocd": 30.0, "ocd_tuned": 37.0, "ridge": 1.5, "deep_ensemble": 4.0}
    rows = ("ridge", "ocd_mean_network", "ocd_tuned_ensemble", "deep_ensemble_5", "base", "somebody_elses")
    assert [_fitted(row, seconds, {}) for row in rows] == [1.5, 30.0, 37.0, 4.0, None, None]
    moved = ("ocd_permuted", "ocd_permuted_tuned", "weight_noise", "random_delta")
    assert [_fitted(row, seconds, {}) for row in moved] == [30.0, 37.0, 30.0, 30.0]


def test_an_ensemble_of_few_members_took_its_share_of_the_fit() -> None:
    """One further network of four, by operations."""
    seconds, operations = {"deep_ensemble": 8.0}, {"deep_ensemble_2": 100, "deep_ensemble_5": 400, "ridge": 9000}
    assert [_fitted(row, seconds, operations) for row in ("deep_ensemble_2", "deep_ensemble_5")] == [2.0, 8.0]
