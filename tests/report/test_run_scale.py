"""The table of ρ's estimates over seeds, against the mean and the standard deviation worked out by hand."""

from pathlib import Path

import pytest

from ocd_core.artifacts import Artifacts, write_json, write_table, write_text
from ocd_core.errors import UserError
from ocd_core.report.run_scale import scale_markdown


def compared(root: Path, seed: int, rank: int, n: int, ratio: float, correlation: float | None) -> Artifacts:
    run = Artifacts("toy", seed, rank, root)
    row = {"estimate": "network", "rows": "all", "n": n, "median_abs_log_ratio": ratio, "rank_correlation": correlation}
    write_table(run.scale / "comparison.tsv", [{**row, "eq8_db": -3.0}, {**row, "rows": "wrong", "eq8_db": 0.5}])
    return run


def table_rows(text: str) -> list[list[str]]:
    lines = [line[2:-2].split(" | ") for line in text.splitlines() if line.startswith("| ")]
    assert lines[0][:3] == ["estimate", "samples", "n"]
    return lines[2:]


def test_one_run_shows_its_numbers(tmp_path: Path) -> None:
    text = scale_markdown([compared(tmp_path, 4, 1, 20, 0.125, 0.5)])
    assert "**toy, layer of rank 1, seed 4**" in text
    assert table_rows(text) == [
        ["network", "all", "20", "0.12", "0.50", "-3.00"],
        ["network", "wrong", "20", "0.12", "0.50", "0.50"],
    ]


def test_seeds_are_averaged_and_ranks_are_apart(tmp_path: Path) -> None:
    first, second = compared(tmp_path, 0, 1, 20, 0.25, None), compared(tmp_path, 1, 1, 18, 0.75, 0.5)
    text = scale_markdown([compared(tmp_path, 0, 2, 7, 1.0, 0.25), first, second])
    one, two = text.split("**toy, layer of rank ")[1:]
    assert one.startswith("1, seeds 0, 1**")
    # the mean of .25 and .75, and their SD: .5 / √2; a correlation that one seed lacks is a dash
    assert table_rows(one)[0] == ["network", "all", "18 to 20", "0.50 ± 0.35", "–", "-3.00 ± 0.00"]
    assert two.startswith("2, seed 0**")
    assert table_rows(two)[0][2:] == ["7", "1.00", "0.25", "-3.00"]


def test_a_run_without_a_comparison(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"comparison\.tsv is missing; run .*stages\.train_scale --task toy --seed 3"):
        scale_markdown([Artifacts("toy", 3, root=tmp_path)])


def test_runs_without_a_scale_network_say_why(tmp_path: Path) -> None:
    for seed in (0, 1):
        run = Artifacts("toy", seed, 2, tmp_path)
        write_text(run.scale / "comparison.tsv", "estimate\teq8_db\n")
        write_json(run.scale / "metrics.json", {"unused": "it is a test"})
    text = scale_markdown(
        [compared(tmp_path, 0, 1, 20, 0.125, 0.5), *(Artifacts("toy", s, 2, tmp_path) for s in (0, 1))]
    )
    one, two = text.split("**toy, layer of rank ")[1:]
    assert table_rows(one)[0][2:] == ["20", "0.12", "0.50", "-3.00"]
    assert two == "2, seeds 0, 1**\n\nNo scale network, because it is a test.\n"
