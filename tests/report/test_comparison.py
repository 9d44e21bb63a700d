"""Runs side by side."""

from pathlib import Path

import pytest

from ocd_core.artifacts import Artifacts
from ocd_core.errors import UserError
from ocd_core.report.comparison import comparison_page, metric_table, param_table, print_comparison, read_runs
from tests.report.test_store_page import Page
from tests.support.tables import ERROR, result, table, write_table


@pytest.fixture
def folders(tmp_path: Path) -> list[str]:
    found = []
    for seed, ocd, steps in ((0, 0.4, 3), (1, 0.45, 3), (2, 0.6, 5)):
        run = Artifacts("toy", seed, root=tmp_path / ("other" if seed == 2 else "one"))
        rows = [result("base", 0.5), result("ocd", ocd, p_holm=0.04 if seed == 0 else 0.2)]
        if seed == 2:
            rows += [result("ridge", 0.3), result("base", 8.0, temperature=2.0), result("ocd", 9.0, temperature=2.0)]
        config = {"overfit": {"steps": steps, "lr": 0.1}, **({"more": {"x": 1}} if seed == 2 else {})}
        write_table(run, table(seed=seed, results=rows), config)
        found.append(str(run.rank_dir))
    return found


def test_rows_of_all_runs(folders: list[str]) -> None:
    columns, rows = metric_table(read_runs(folders))
    assert columns == [
        "method", "one/toy/seed0/rank1: rmse ↓", "one/toy/seed1/rank1: rmse ↓", "other/toy/seed2/rank1: rmse ↓",
    ]  # fmt: skip
    assert rows == [
        ["the base", "0.500", "0.500", "0.500"],
        ["the ocd", "0.400* (-0.100)", "0.450 (-0.050)", "0.600 (+0.100)"],
        ["the ridge", "–", "–", "0.300* (-0.200)"],
    ]


def test_only_params_that_differ(folders: list[str]) -> None:
    columns, rows = param_table(read_runs(folders))
    assert columns[0] == "param"
    assert rows == [["seed", "0", "1", "2"], ["overfit.steps", "3", "3", "5"], ["more.x", "–", "–", "1"]]
    assert [run.name for run in read_runs(folders[:2])] == ["seed0/rank1", "seed1/rank1"]


def test_on_the_terminal_and_as_a_page(folders: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    runs = read_runs(folders)
    print_comparison(runs)
    printed = capsys.readouterr().out
    found = Page(comparison_page(runs))
    for text in ("0.400* (-0.100)", "overfit.steps", "the ridge"):
        assert text in printed
        assert text in found.text


def test_what_cannot_be_compared(folders: list[str], tmp_path: Path) -> None:
    with pytest.raises(UserError, match="at least two runs"):
        read_runs(folders[:1])
    with pytest.raises(UserError, match="named twice"):
        read_runs([folders[0], f"{folders[0]}/"])
    with pytest.raises(UserError, match="is not a run's folder"):
        read_runs([folders[0], str(tmp_path)])
    run = Artifacts("none", root=tmp_path)
    with pytest.raises(UserError, match=r"evaluation is missing; run 'dvc repro'"):
        read_runs([folders[0], str(run.rank_dir)])
    other = Artifacts.from_folder(folders[1])
    metric = {**ERROR, "name": "accuracy"}
    write_table(other, table(metrics=[metric], results=[result("base", 0.5, metric="accuracy")]))
    with pytest.raises(UserError, match=r"different first metrics .*seed0/rank1: rmse, .*accuracy"):
        metric_table(read_runs(folders[:2]))
