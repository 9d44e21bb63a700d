"""Tables that people read: their columns, what intervals are taken over, and what is absent."""

import re
from typing import Any

import pytest

from ocd_core.report.results import merged_results
from ocd_core.report.run_tables import columns_and_rows, heading, markdown, notes, print_tables
from tests.support.tables import ERROR, result, table


def shown(*tables: dict[str, Any]) -> str:
    return markdown(merged_results(tables or [table()]))


def test_one_run_shows_the_difference_with_its_interval() -> None:
    text = shown()
    assert "**toy, layer head (rank 1), 20 test samples, seed 0**" in text
    assert "| method | rmse ↓ | difference [95 %] | z | p | gap closed |" in text
    assert "| the base | 0.500 |  |  |  |  |" in text
    assert "| the ocd | 0.400 | -0.100 [-0.200, +0.000] | -2.0 | .040 | 25 % |" in text
    assert "ocd_gain: left out, because it is a test." in text
    assert "A remark." in text
    assert "+T" not in text


def test_a_small_difference_has_no_negative_zero() -> None:
    small = result("ocd", 0.5, difference=-1e-9, difference_low=-1e-8, difference_high=1e-9)
    assert "| +0.000 [+0.000, +0.000] |" in shown(table(results=[result("base", 0.5), small]))


def test_a_split_with_groups_says_so() -> None:
    assert "z: paired over 4 groups of test samples" in shown(table(groups=4))
    assert "z: paired over test samples" in shown()


def test_several_seeds_show_their_mean_and_spread() -> None:
    other = table(seed=1, results=[result("base", 0.5), result("ocd", 0.6, z=-3.0, p=0.0001, gap_closed=0.75)])
    text = shown(table(), other)
    assert "seeds 0, 1, mean ± SD over seeds**" in text
    assert "| the ocd | 0.500 ± 0.141 | +0.000 [-0.100, +0.100] | -2.5 | 1.000 | 50 % |" in text
    assert "the largest of the seeds" in text


def test_other_metrics_and_temperatures_have_columns_with_stars() -> None:
    accuracy = {"name": "accuracy", "higher_is_better": True, "unit": "%", "decimals": 1}
    results = [
        result("base", 0.5), result("base", 0.45, temperature=1.2), result("base", 90.0, metric="accuracy"),
        result("ocd", 0.4, p=1e-5), result("ocd", 0.35, temperature=2.0, p=0.2),
        result("ocd", 91.0, metric="accuracy", p=0.01),
        result("bound", 0.1), result("bound", 0.1, temperature=0.5),
        {**result("bound", 0.0, metric="accuracy", p=None), "mean": None},
    ]  # fmt: skip
    text = shown(table(results=results, metrics=[ERROR, accuracy]))
    assert "| gap closed | rmse +T ↓ | accuracy % ↑ |" in text
    assert "| <.001 | 25 % | 0.350 | 91.0\\* |" in text
    assert "| the base | 0.500 |  |  |  |  | 0.450 | 90.0 |" in text
    assert text.count(" – |") == 1
    assert "(0.50 to 2.00; base 1.20; above 1" in text


def test_ranks_are_tables_of_their_own() -> None:
    second = table(rank=2, layer="embed")
    text = shown(table(), second, table(seed=1))
    assert "**toy, layer head (rank 1), 20 test samples, seeds 0, 1" in text
    assert "**toy, layer embed (rank 2), 20 test samples, seed 0**" in text
    assert "| OCD, alternative layer (embed) | 0.400 |" in text


def test_what_the_bound_sees_is_averaged_over_seeds() -> None:
    tables = [
        table(bound_parts={"metric": "rmse", "share_seen": share, "seen": seen, "unseen": unseen}, seed=seed)
        for seed, (share, seen, unseen) in enumerate(((0.25, 0.5, 1.0), (0.75, 1.0, None)))
    ]
    note = "The bound sees 50 % of each test sample: rmse 0.750 there, 1.000 on the rest."
    assert note in notes(merged_results(tables)[0])
    assert "The bound sees 75 % of each test sample: rmse 1.000 there." in notes(merged_results(tables[1:])[0])


def test_titles_say_unit_and_direction() -> None:
    assert heading(ERROR) == "rmse ↓"
    assert heading({**ERROR, "name": "top_5", "unit": "%", "higher_is_better": True}) == "top 5 % ↑"


@pytest.mark.parametrize("width", [60, 80, 120, 200])
def test_a_terminal_cuts_no_number(
    width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("rich.console.Console.is_terminal", True)
    monkeypatch.setenv("COLUMNS", str(width))
    title = "a denoiser with fresh weights on the task's loss, ensemble of five"
    accuracy = {"name": "accuracy", "higher_is_better": True, "unit": "%", "decimals": 1}
    rows = [result("base", 0.5), result("ocd", 0.412, title=title)]
    rows += [result(row, mean, metric="accuracy") for row, mean in (("base", 97.1), ("ocd", 98.2))]
    entries = merged_results([table(metrics=[ERROR, accuracy], results=rows)])
    print_tables(entries)
    text = re.sub(r"\x1b\[[0-9;]*m", "", capsys.readouterr().out)
    _, (_, cells) = columns_and_rows(entries[0])
    for word in " ".join(cell.replace("\\*", "*") for cell in cells[1:]).split():
        assert word in text


def test_the_terminal_shows_what_the_file_says(capsys: pytest.CaptureFixture[str]) -> None:
    print_tables(merged_results([table()]))
    text = " ".join(capsys.readouterr().out.split())
    assert "toy, layer head (rank 1), 20 test samples, seed 0" in text
    for word in ("rmse ↓", "-0.100 [-0.200, +0.000]", "-2.0", "25 %", "ocd_gain: left out, because it is a test."):
        assert word in text
    assert "\\" not in text
