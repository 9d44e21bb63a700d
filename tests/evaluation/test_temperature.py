"""Temperatures: against a fine grid, and in a whole run of two classes."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from ocd_core.artifacts import Artifacts
from ocd_core.config import load_params
from ocd_core.evaluation.context import Context
from ocd_core.evaluation.fitted import load_rows
from ocd_core.evaluation.result import Result
from ocd_core.evaluation.shared_pass import SharedPass
from ocd_core.evaluation.temperature import RANGE, choose_temperature
from ocd_core.predictor import Predictor
from ocd_core.report.run_samples import sample_columns
from ocd_core.samples import SPLITS, whole_split
from tests.support.runs import run_of
from tests.support.toy import PLANE, PlaneTask


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Artifacts:
    return run_of(tmp_path_factory.mktemp("plane"), "plane", PLANE)


def test_the_best_temperature_of_a_fine_grid() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(500, 4, generator=generator, dtype=torch.float64)
    target = torch.distributions.Categorical(logits=logits).sample()
    task = PlaneTask(None, "", {})
    for factor in (0.5, 1.0, 3.0):  # too modest, right, too sure
        output = factor * logits
        found = choose_temperature(task, [output[:200], output[200:]], [target[:200], target[200:]])
        grid = np.geomspace(0.2, 10, 4000)
        losses = [float(F.cross_entropy(output / t, target)) for t in grid]
        assert found == pytest.approx(grid[int(np.argmin(losses))], rel=2e-3)
    assert RANGE[0] <= choose_temperature(task, [torch.eye(4).double()], [torch.arange(4)]) < 1.01 * RANGE[0]


def test_every_row_has_its_own_temperature_from_validation(plane: Artifacts) -> None:
    table = json.loads((plane.evaluation / "table.json").read_text())
    results = {(r["row"], r["metric"], r["temperature"] is not None): Result(**r) for r in table["results"]}
    params = load_params("plane", plane.root)
    context = Context(plane, params, Predictor.from_run(plane, params), SPLITS)
    rows, _ = load_rows(context, params.evaluate.rows)
    assert {r.name for r in rows} == {row for row, _, _ in results}
    outputs, targets = {}, {}
    for name in ("val", "test"):
        split = context.split(name)
        batch = split.batch(whole_split(split))
        shared = SharedPass(context.predictor, batch, name)
        outputs[name], targets[name] = {row.name: row.outputs(shared) for row in rows}, batch.target
    for row in rows:
        temperature = choose_temperature(context.task, [outputs["val"][row.name]], [targets["val"]])
        found = results[row.name, "cross_entropy", True]
        assert found.temperature == pytest.approx(temperature, rel=1e-6)
        expected = F.cross_entropy(outputs["test"][row.name] / temperature, targets["test"])
        assert found.mean == pytest.approx(float(expected), rel=1e-6)
        plain = results[row.name, "cross_entropy", False]
        assert plain.mean == pytest.approx(float(F.cross_entropy(outputs["test"][row.name], targets["test"])), rel=1e-6)
        accuracies = [results[row.name, "accuracy", tempered].mean for tempered in (False, True)]
        assert accuracies[0] == accuracies[1]
        assert found.gap_closed is None
        entropy = F.cross_entropy(outputs["test"][row.name] / temperature, targets["test"], reduction="none")
        kept = sample_columns(plane)[f"{row.name}_cross_entropy_tempered"]
        np.testing.assert_allclose(kept, entropy.double().numpy(), rtol=1e-5, atol=1e-7)
    summary = json.loads((plane.evaluation / "metrics.json").read_text())
    assert summary["ocd"]["temperature"] == results["ocd", "cross_entropy", True].temperature
    assert summary["ocd"]["cross_entropy_tempered"] == results["ocd", "cross_entropy", True].mean


def test_the_report_has_a_column_after_temperature(plane: Artifacts) -> None:
    text = (plane.report / "table.md").read_text()
    for title in ("cross entropy +T ↓", "brier ↓", "ece ↓", "auroc wrong ↑", "accuracy % ↑"):
        assert title in text
    assert "+T: after a temperature that each row chose on validation" in text
    assert Path(plane.report / "results.json").is_file()
