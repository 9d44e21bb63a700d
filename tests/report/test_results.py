"""Results merged over seeds, and rows that come from other ranks and presets."""

from pathlib import Path

import pytest

from ocd_core.artifacts import Artifacts
from ocd_core.errors import UserError
from ocd_core.evaluation.result import Result
from ocd_core.report.results import merged_results, over_seeds, preset_tables, run_tables
from tests.support.tables import result, table, write_table


def of(*values: dict) -> list[Result]:
    return [Result(**v) for v in values]


def test_tables_are_read_by_rank_and_seed(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no evaluated run of task 'toy' below .*toy; run 'dvc repro' first"):
        run_tables("toy", tmp_path)
    for seed, rank in ((1, 1), (10, 2), (0, 2), (2, 1)):
        write_table(Artifacts("toy", seed, rank, tmp_path), table(seed=seed, rank=rank))
    found = [(t["rank"], t["seed"]) for t in run_tables("toy", tmp_path)]
    assert found == [(1, 1), (1, 2), (2, 0), (2, 10)]


def test_what_is_better_with_one_seed_and_worse_with_another_is_no_different() -> None:
    runs = [of(result("ocd", mean, difference=mean - 0.5, z=z, p=1e-6)) for mean, z in ((0.3, -5.0), (0.6, 5.0))]
    assert over_seeds(runs)[0].p == 1.0
    assert over_seeds([runs[0], runs[0]])[0].p == 1e-6


def test_seeds_have_a_mean_a_spread_and_the_largest_p() -> None:
    runs = [
        of(result("ocd", 0.4, z=-3.0, p=0.01, gap_closed=0.5, flops=100, title="a")),
        of(result("ocd", 0.2, z=-1.0, p=0.3, gap_closed=0.7, flops=100, title="b")),
        of(result("ocd", 0.6, z=1.0, p=0.2, gap_closed=None, flops=103, title="a", difference=None)),
    ]
    (merged,) = over_seeds(runs)
    assert (merged.mean, merged.sd_over_seeds, merged.seeds) == (pytest.approx(0.4), pytest.approx(0.2), 3)
    assert (merged.z, merged.p, merged.gap_closed) == (pytest.approx(-1), 0.3, pytest.approx(0.6))
    assert (merged.flops, merged.title) == (101, "a / b")
    assert (merged.low, merged.high) == (pytest.approx(0.3), pytest.approx(0.5))
    assert over_seeds(runs[:1]) == runs[0]


def test_a_metric_is_merged_with_itself_only() -> None:
    runs = [of(result("ocd", 0.4), result("ocd", 0.3, temperature=1.5), result("ocd", 9.0, metric="mae"))] * 2
    found = over_seeds(runs)
    assert [(r.metric, r.temperature, r.mean) for r in found] == [
        ("rmse", None, 0.4),
        ("rmse", 1.5, 0.3),
        ("mae", None, 9.0),
    ]
    undefined = over_seeds([of({**result("ocd", 0.1, p=None), "mean": None}) for _ in range(2)])[0]
    assert (undefined.mean, undefined.sd_over_seeds, undefined.p) == (None, None, None)


def test_a_row_that_failed_with_one_seed_says_how_many_it_has() -> None:
    runs = [of(result("base", 0.5), result("ocd", 0.4)), of(result("base", 0.7))]
    assert [(r.row, r.seeds) for r in over_seeds(runs)] == [("base", 2), ("ocd", 1)]


def test_the_second_layer_and_the_presets_are_rows_of_the_first_table() -> None:
    one, two = table(), table(rank=2, layer="embed", results=[result("base", 0.5), result("ocd", 0.45, p=0.001)])
    released = [table(results=[result("base", 0.5), result("ocd", 0.6, preset="released")])]
    first, second = merged_results([one, two, table(seed=1)], {"released": released})
    assert [r.row for r in first.results] == ["base", "ocd", "ocd_alternative_layer", "ocd_released"]
    assert [r.title for r in first.results[2:]] == ["OCD, alternative layer (embed)", "OCD, preset released"]
    assert (first.seeds, second.seeds) == ([0, 1], [0])
    assert first.results[2].mean == 0.45
    assert first.results[2].p_holm == pytest.approx(0.003)  # of three rows
    assert first.results[3].preset == "released"
    assert [r.row for r in second.results] == ["base", "ocd"]
    assert [a.row for a in first.absent] == ["ocd_gain"]


def test_presets_are_tasks_of_their_own(tmp_path: Path) -> None:
    assert preset_tables("toy", tmp_path) == preset_tables("ä" * 64, tmp_path) == {}  # too long for a preset's name
    write_table(Artifacts("toy_paper", 0, 1, tmp_path), table(task="toy_paper"))
    assert list(preset_tables("toy", tmp_path)) == ["paper"]
