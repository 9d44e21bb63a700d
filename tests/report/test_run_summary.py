"""What a run found, in words, for results made by hand."""

from pathlib import Path

from ocd_core.artifacts import Artifacts, write_json
from ocd_core.report.results import merged_results
from ocd_core.report.run_summary import about, differences_figure, in_short, legend
from tests.support.tables import result, table


def test_in_short_says_better_worse_or_chance() -> None:
    rows = [
        result("base", 0.5),
        result("ocd", 0.6, difference=0.1, p=0.001),
        result("ridge", 0.45, difference=-0.05, p=0.0001),
        result("bound", 0.1),
    ]
    (entry,) = merged_results([table(results=rows)])
    text = in_short(entry)
    assert text.startswith("The base network's rmse is 0.500.")
    assert "the ocd: **0.600**, worse than the base (p = .002, corrected)" in text  # over three rows: 2 · .001
    assert "The best row that sees no test label is the ridge: 0.450, better than the base (p < .001, " in text
    rows[1] = result("ocd", 0.6, difference=0.1, p=0.3)
    (entry,) = merged_results([table(results=rows)])
    assert "no different from the base beyond chance (p = " in in_short(entry)


def test_rows_are_explained_and_the_bound_is_not_drawn() -> None:
    rows = [result("base", 0.5), result("ocd", 0.4), result("ocd_ensemble_5", 0.3), result("bound", 0.1)]
    (entry,) = merged_results([table(results=rows)])
    found = dict(legend(entry))
    assert found["the ocd"] == "one draw of Δ for each sample (Alg. 2)."
    assert set(found) == {"the base", "the ocd", "the ocd_ensemble_5", "the bound"}
    figure = differences_figure(entry)
    assert figure is not None
    assert [text.get_text() for text in figure.axes[0].get_yticklabels()] == ["the ocd", "the ocd_ensemble_5"]
    assert differences_figure(merged_results([table(results=rows[:1])])[0]) is None


def test_what_was_done_in_words(tmp_path: Path) -> None:
    run = Artifacts("toy", root=tmp_path)
    write_json(run.evaluation / "config.json", {"base": {"model": {"name": "mlp"}}})
    write_json(run.prepared / "summary.json", {"source": "points", "splits": {"train": {"samples": 1200}}})
    (entry,) = merged_results([table()])
    assert "(`mlp`) was trained on the task `toy` (1,200 to train; source: points)" in about(run, entry)
    write_json(run.prepared / "summary.json", {"train": 3})
    assert "on the task `toy`. It was then overfitted" in about(run, entry)
