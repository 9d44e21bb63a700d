"""Which samples are shown, against plain loops; calibration in bins against torchmetrics."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from torchmetrics.functional.classification import binary_calibration_error

from ocd_core.artifacts import Artifacts, read_json
from ocd_core.report.page import Markdown, Picture, Table
from ocd_core.report.run_samples import (
    SHOWN,
    choose,
    images_figure,
    reliability,
    reliability_figure,
    sample_columns,
    samples_blocks,
    words,
)
from tests.support.arrays import ArrayTask

Runs = Callable[[str], Artifacts]


def table_of(metric: str, higher: bool) -> dict:
    return {"metrics": [{"name": metric, "higher_is_better": higher}], "results": [{"n": 40}]}


@pytest.mark.parametrize("higher", [False, True])
def test_mended_and_broken_samples(higher: bool) -> None:
    rng = np.random.default_rng(0)
    columns = {f"{row}_{name}": rng.random(40) for row in ("base", "ocd") for name in ("score", "accuracy")}
    for row in ("base", "ocd"):
        columns[f"{row}_accuracy"] = 100.0 * (columns[f"{row}_accuracy"] > 0.5)
    mended, broken = choose(columns, table_of("score", higher))
    for kind, before, after in ((mended, 0, 100), (broken, 100, 0)):
        rows = [
            (abs(columns["ocd_score"][i] - columns["base_score"][i]), i)
            for i in range(40)
            if (columns["base_accuracy"][i], columns["ocd_accuracy"][i]) == (before, after)
        ]
        assert kind.count == len(rows)
        assert {*kind.sample_id} <= {i for _, i in rows}
        better = 1 if higher == (kind is mended) else -1
        gains = [better * (columns["ocd_score"][i] - columns["base_score"][i]) for i in kind.sample_id]
        assert gains == sorted(gains, reverse=True)


def test_numbers_have_better_and_worse_samples() -> None:
    columns = {"base_mse": np.arange(30.0), "ocd_mse": np.arange(30.0)[::-1].copy()}
    better, worse = choose(columns, table_of("mse", False))
    assert (better.title, worse.title) == ("better", "worse")
    assert better.sample_id == list(range(29, 29 - SHOWN, -1))  # 29 falls to 0
    assert worse.sample_id == list(range(SHOWN))
    assert better.count == worse.count == 15
    assert choose({"base_mse": np.zeros(2)}, table_of("mse", False)) == []


def test_images_are_drawn_with_their_answers(run_of_domain: Runs) -> None:
    run = run_of_domain("images")
    table = read_json(run.evaluation / "table.json")
    found = samples_blocks(run, table)
    columns = sample_columns(run)
    mended = int(((columns["base_accuracy"] == 0) & (columns["ocd_accuracy"] == 100)).sum())
    broken = int(((columns["base_accuracy"] == 100) & (columns["ocd_accuracy"] == 0)).sum())
    assert mended + broken > 0  # or the test shows nothing: take another seed
    text = " ".join(block.text for block in found if isinstance(block, Markdown))
    assert f"one draw of OCD is right: {mended} of 60 test samples" in text
    assert f"one draw of OCD is wrong: {broken} of 60 test samples" in text
    assert "its number and target, then what the base and one draw of OCD answer, a class with its probability." in text
    pictures = [block for block in found if isinstance(block, Picture)]
    assert len(pictures) == bool(mended) + bool(broken)
    assert "base: " in pictures[0].text
    (counts,) = samples_blocks(run, table, shown=False)
    assert isinstance(counts, Markdown)


def test_rows_of_a_table_are_listed_in_their_unit(run_of_domain: Runs) -> None:
    run = run_of_domain("tabular")
    found = samples_blocks(run, read_json(run.evaluation / "table.json"))
    tables = [block for block in found if isinstance(block, Table)]
    assert tables
    columns = sample_columns(run)
    for sample, target, base, _ocd in tables[0].rows:
        values = [float(text.removeprefix("value ")) for text in (target, base)]
        assert abs(values[0] - values[1]) == pytest.approx(columns["base_rmse"][int(sample)], rel=0.02, abs=2e-3)


def test_bins_are_those_of_the_calibration_error() -> None:
    rng = np.random.default_rng(1)
    confidence = rng.uniform(0.1, 1, 500)
    right = (rng.random(500) < confidence**2).astype(float)
    found = reliability(confidence, right)
    error = sum(count / 500 * abs(mean - share) for mean, share, count in found)
    wanted = binary_calibration_error(torch.from_numpy(confidence), torch.from_numpy(right).long(), n_bins=15)
    assert error == pytest.approx(float(wanted), rel=1e-6)
    assert sum(count for *_, count in found) == 500


def test_reliability_needs_classes(run_of_domain: Runs) -> None:
    digits, rows = (run_of_domain(domain) for domain in ("images", "tabular"))
    figure = reliability_figure(digits, read_json(digits.evaluation / "table.json"))
    assert figure is not None
    base, ocd = figure.axes
    assert (base.get_title(), ocd.get_title()[:14]) == ("base network", "OCD (one draw)")
    # the answers' probabilities are those of a softmax over ten classes
    assert all(0.1 <= x <= 1 for line in base.lines[1:] for x in line.get_xdata())
    assert reliability_figure(rows, read_json(rows.evaluation / "table.json")) is None


def test_what_a_reader_sees_of_images() -> None:
    figure = images_figure([torch.zeros(4, 4), torch.ones(4, 4, 3)], ["one", "two"])
    assert [axis.get_title() for axis in figure.axes] == ["one", "two", "", ""]


def test_words_of_an_output() -> None:
    class Named(ArrayTask):
        def describe_output(self, output):
            return {"class": "cat", "probability": 0.731} if output.numel() == 1 else {"y0": 1.23456, "name": "a"}

    assert words(Named(), torch.zeros(1)) == "cat (0.73)"
    assert words(Named(), torch.zeros(2)) == "y0 1.235, name a"
