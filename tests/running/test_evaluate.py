"""The module `ocd_core.running.evaluate`."""

from ocd_core.artifacts import Artifacts, read_json


def test_the_table_has_the_rows_of_the_params(plane_run: Artifacts) -> None:
    table = read_json(plane_run.evaluation / "table.json")
    rows = list(dict.fromkeys(result["row"] for result in table["results"]))
    assert rows == ["base", "mean_delta", "ridge", "ocd", "ocd_gain", "ocd_ensemble", "bound"]
    assert (table["task"], table["seed"], table["rank"]) == ("plane", 0, 1)
