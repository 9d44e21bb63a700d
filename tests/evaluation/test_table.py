"""`table.json`, as a run writes it and as it may have been changed."""

from pathlib import Path
from typing import Any

import pytest

from ocd_core.artifacts import read_json
from ocd_core.errors import UserError
from ocd_core.evaluation.table import checked_table, read_result_table


@pytest.fixture(scope="module")
def table(toy_run: Path) -> Path:
    return toy_run / "data/toy/seed0/rank1/evaluation/table.json"


def test_a_table_is_read_as_it_is(table: Path) -> None:
    values = read_json(table)
    assert read_result_table(table) == values
    assert checked_table({**values, "of a later version": 1}, "here")["results"] == values["results"]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"rank": 0}, "rank: Input should be greater than or equal to 1"),
        ({"results": []}, "results: List should have at least 1 item"),
        ({"metrics": [{"name": "rmse"}]}, r"metrics\.0\.higher_is_better: Field required"),
    ],
)
def test_what_is_wrong_is_named(table: Path, change: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=rf"^here is damaged: {words}"):
        checked_table({**read_json(table), **change}, "here")


def test_rows_need_a_base(table: Path) -> None:
    values = read_json(table)
    values["results"] = [r for r in values["results"] if r["row"] != "base"]
    with pytest.raises(UserError, match=r"here is damaged: it has no .* of the base"):
        checked_table(values, "here")
