"""Tables that people read: what their intervals and z are taken over, and what is left out."""

import copy

from ocd_core.report.run_tables import Table, markdown, merged

ERROR = {"name": "rmse", "higher_is_better": False, "unit": "", "decimals": 3}


def row(name: str, value: float, z: float, gap: float | None) -> Table:
    figure = {"value": value, "low": value - 0.1, "high": value + 0.1, "z_against_base": z}
    return {"row": name, "title": f"the {name}", "n": 20, "gap_closed": gap, "rmse": figure}


TABLE: Table = {
    "task": "toy",
    "seed": 0,
    "rank": 1,
    "layer": "head",
    "metrics": [ERROR],
    "rows": [row("base", 0.5, 0.0, 0.0), row("ocd", 0.4, -2.0, 0.25)],
    "left_out": {"ocd_gain": "it is a test"},
    "remarks": ["A remark."],
    "bound_parts": None,
}


def test_one_run_shows_intervals_over_samples() -> None:
    text = markdown([TABLE])
    assert "[95 % bootstrap interval over test samples]" in text
    assert "z: paired over test samples against the base, in rmse; negative where" in text
    assert "| the ocd | 20 | 0.400 [0.300, 0.500] | -2.0 | 25 % |" in text
    assert "ocd_gain: left out, because it is a test." in text
    assert "A remark." in text


def test_a_split_with_groups_says_so() -> None:
    text = markdown([{**TABLE, "groups": 4}])
    assert "[95 % bootstrap interval over 4 groups of test samples]" in text
    assert "z: paired over 4 groups of test samples against the base" in text


def test_several_seeds_show_their_mean_and_spread() -> None:
    other = copy.deepcopy(TABLE)
    other["seed"] = 1
    other["rows"][1]["rmse"]["value"] = 0.6
    (entry,) = merged([TABLE, other])
    assert entry["seeds"] == [0, 1]
    assert entry["rows"][1][2] == "0.500 ± 0.141"
    assert "mean over seeds" in entry["notes"][0]
    assert "± SD over seeds" in markdown([TABLE, other])
