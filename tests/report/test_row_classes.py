"""Rows of written tables by name."""

import pytest

from ocd_core.report.row_classes import class_of


@pytest.mark.parametrize(
    ("row", "module"),
    [
        ("ocd", "ocd"),
        ("tent_10_online", "tent"),
        ("ocd_tuned_ensemble_5", "ocd_tuned_ensemble"),
        ("deep_ensemble_2", "deep_ensemble"),
        ("gone", None),
        ("tentative", None),
    ],
)
def test_a_variant_belongs_to_the_longest_name_that_it_begins_with(row: str, module: str | None) -> None:
    found = class_of(row)
    assert (None if found is None else found.__module__.rsplit(".", 1)[1]) == module
