"""What the report says about memorisation: its figures, its plot, and a run without them."""

from pathlib import Path
from typing import Any

import pytest

from ocd_core.artifacts import Artifacts, write_json, write_table
from ocd_core.report.page import Markdown, Picture, Table
from ocd_core.report.run_memorisation import memorisation_blocks, nearest_figure

FOUND: dict[str, Any] = {
    "samples": 3,
    "training": 1200,
    "nearest": {
        "held_out": {"median": 2.0, "copies": 0.0},
        "ocd": {"median": 0.5, "of_held_out": 0.25, "copies": 0.125},
        "ocd_tuned": {"median": 3.0, "of_held_out": None, "copies": 0.0},
    },
    "representation": {
        "loss": 0.5,
        "loss_overfitted": 0.1,
        "loss_decoded": 0.2,
        "loss_after": 0.11,
        "kept": 0.75,
    },
}
ROWS = [
    {"held_out": 2.0, "ocd": 0.5, "ocd_tuned": 3.0},
    {"held_out": 1.0, "ocd": 0.25, "ocd_tuned": 4.0},
    {"held_out": 3.0, "ocd": 0.75, "ocd_tuned": 2.0},
]


@pytest.fixture
def run(tmp_path: Path) -> Artifacts:
    run = Artifacts("digits", root=tmp_path)
    run.evaluation.mkdir(parents=True)
    write_json(run.evaluation / "memorisation.json", FOUND)
    write_table(run.evaluation / "memorisation.tsv", ROWS)
    return run


def test_the_figures(run: Artifacts) -> None:
    text, table, picture, kept = memorisation_blocks(run)
    assert isinstance(text, Markdown)
    assert "1,200 training Δ, for 3 validation samples" in text.text
    assert isinstance(table, Table)
    assert [list(row) for row in table.rows] == [
        ["real Δ of validation samples", "2", "–", "0.0 %"],
        ["drawn Δ, OCD", "0.5", "25 %", "12.5 %"],
        ["drawn Δ, OCD tuned", "3", "–", "0.0 %"],
    ]
    assert isinstance(picture, Picture)
    assert isinstance(kept, Markdown)
    for words in ("0.5 with the base network", "0.1 with their real Δ", "0.2 with", "75.0 %", "loss of 0.11 after"):
        assert words in kept.text


def test_without_a_gain_there_is_no_share(run: Artifacts) -> None:
    write_json(
        run.evaluation / "memorisation.json", FOUND | {"representation": FOUND["representation"] | {"kept": None}}
    )
    kept = memorisation_blocks(run)[-1]
    assert isinstance(kept, Markdown)
    assert "which keeps" not in kept.text


def test_the_plot_has_the_share_of_samples_within_each_distance(run: Artifacts) -> None:
    (axis,) = nearest_figure(run).axes
    lines = {line.get_label(): line for line in axis.lines}
    drawn: Any = lines["drawn Δ, OCD"]
    assert list(drawn.get_xdata()) == [0.25, 0.5, 0.75]
    assert list(drawn.get_ydata()) == pytest.approx([1 / 3, 2 / 3, 1])
    assert list(lines) == ["real Δ of validation samples", "drawn Δ, OCD", "drawn Δ, OCD tuned"]


@pytest.mark.parametrize("found", [None, {}])
def test_a_run_without_them_has_no_section(run: Artifacts, found: dict[str, Any] | None) -> None:
    (run.evaluation / "memorisation.json").unlink()
    if found is not None:
        write_json(run.evaluation / "memorisation.json", found)
    assert memorisation_blocks(run) == []
