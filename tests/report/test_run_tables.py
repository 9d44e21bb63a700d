"""Tables that people read: what their intervals and z are taken over, and what is left out."""

import copy
from pathlib import Path

import pytest

from ocd_core.artifacts import Artifacts, write_json
from ocd_core.errors import UserError
from ocd_core.report.run_tables import Table, heading, markdown, merged, print_tables, run_tables

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


def test_seeds_average_z_and_the_gap_and_leave_the_bases_own_empty() -> None:
    other = copy.deepcopy(TABLE)
    other["rows"][1]["rmse"]["z_against_base"], other["rows"][1]["gap_closed"] = -3.0, 0.75
    other["rows"][1]["title"] = "another"
    (entry,) = merged([TABLE, other])
    assert entry["rows"][0][-2:] == ["", ""]
    assert entry["rows"][1][-2:] == ["-2.5", "50 %"]
    assert entry["rows"][1][0] == "the ocd / another"
    other["rows"][1]["gap_closed"] = None
    assert merged([TABLE, other])[0]["rows"][1][-1] == ""


def test_ranks_are_tables_of_their_own() -> None:
    second = {**TABLE, "rank": 2, "layer": "embed"}
    one, two = merged([TABLE, second, {**TABLE, "seed": 1}])
    assert (one["rank"], one["layers"], one["seeds"]) == (1, ["head"], [0, 1])
    assert (two["rank"], two["layers"], two["seeds"]) == (2, ["embed"], [0])
    text = markdown([TABLE, second])
    assert "**toy, layer head (rank 1), seed 0: " in text
    assert "**toy, layer embed (rank 2), seed 0: " in text


def test_what_the_bound_sees_is_averaged_over_seeds() -> None:
    tables = [
        {**TABLE, "bound_parts": {"share_seen": share, "seen": seen, "unseen": unseen}}
        for share, seen, unseen in ((0.25, 0.5, 1.0), (0.75, 1.0, None))
    ]
    note = "The bound sees 50 % of each test sample: rmse 0.750 there, 1.000 on the rest."
    assert note in merged(tables)[0]["notes"]
    assert "The bound sees 75 % of each test sample: rmse 1.000 there." in merged(tables[1:])[0]["notes"]


def test_titles_say_unit_and_direction() -> None:
    assert heading(ERROR) == "rmse ↓"
    assert heading({**ERROR, "name": "top_5", "unit": "%", "higher_is_better": True}) == "top 5 % ↑"


def test_tables_are_read_by_rank_and_seed(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no evaluated run of task 'toy' below .*toy; run 'dvc repro' first"):
        run_tables("toy", tmp_path)
    for seed, rank in ((1, 1), (10, 2), (0, 2), (2, 1)):
        run = Artifacts("toy", seed, rank, tmp_path)
        write_json(run.evaluation / "table.json", {**TABLE, "seed": seed, "rank": rank})
    found = [(table["rank"], table["seed"]) for table in run_tables("toy", tmp_path)]
    assert found == [(1, 1), (1, 2), (2, 0), (2, 10)]


def test_the_terminal_shows_what_the_file_says(capsys: pytest.CaptureFixture[str]) -> None:
    print_tables([TABLE])
    shown = " ".join(capsys.readouterr().out.split())
    assert "toy, layer head (rank 1), seed 0: [95 % bootstrap interval over test samples]" in shown
    for word in ("rmse ↓", "0.400 [0.300, 0.500]", "-2.0", "25 %", "ocd_gain: left out, because it is a test."):
        assert word in shown
