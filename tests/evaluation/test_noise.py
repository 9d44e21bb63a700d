"""Noise around answers: the distribution's moments, the best deviation by closed forms, and in a whole run."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar

from ocd_core.artifacts import Artifacts, read_json
from ocd_core.evaluation.noise import POINTS, Noise, choose_noise
from ocd_core.evaluation.result import Result
from ocd_core.report.results import merged_results, run_tables
from ocd_core.report.run_samples import sample_columns
from ocd_core.report.run_tables import columns_and_rows, notes
from ocd_core.rng import sample_normal
from ocd_core.samples import Batch
from ocd_core.tasks.metric import Metric
from ocd_core.tasks.regression import covered, crps, regression_metrics
from tests.support.runs import GROUPS, run_of
from tests.support.toy import ToyTask, toy_params

CRPS = Metric("crps", crps, higher_is_better=False, sees="draws")


def test_every_network_has_as_many_points_and_each_sample_its_own_noise() -> None:
    draws = torch.arange(12, dtype=torch.float64).reshape(3, 4, 1) * 100
    points = Noise(torch.arange(4), 0).widened(draws, 0.5)
    repeats = math.ceil(POINTS / 3)
    assert points.shape == (3 * repeats, 4, 1)
    noise = (points - draws.repeat(repeats, 1, 1)) / 0.5
    assert noise.abs().max() < 5
    assert noise.mean().abs() < 0.15
    assert noise.std() == pytest.approx(1, abs=0.1)
    assert len({float(v) for v in noise[0, :, 0]}) == 4
    # whatever its neighbours
    torch.testing.assert_close(Noise(torch.tensor([2]), 0).widened(draws[:, 2:3], 0.5), points[:, 2:3], rtol=0, atol=0)
    assert torch.equal(Noise(torch.arange(4), 0).widened(draws, 0.0)[:3], draws)
    assert len(Noise(torch.arange(4), 0).widened(draws.repeat(100, 1, 1), 0.5)) == 300


def test_noise_is_drawn_once_for_all_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = []

    def counted(shape: Any, *rest: Any) -> torch.Tensor:
        drawn.append(tuple(shape))
        return sample_normal(shape, *rest)

    monkeypatch.setattr("ocd_core.evaluation.noise.sample_normal", counted)
    noise = Noise(torch.arange(4), 0)
    for networks in (1, 5, 20):  # as many points for each
        noise.widened(torch.zeros(networks, 4, 1), 0.1 * networks)
    assert drawn == [(POINTS, 1)]


def normal_crps(error: Any, deviation: float) -> Any:
    """The score of N(0, deviation²) at `error` (Gneiting and Raftery, 2007, Eq. 20's closed form)."""
    z = error / deviation
    density = np.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)
    below = 0.5 * (1 + np.vectorize(math.erf)(z / math.sqrt(2)))
    return deviation * (z * (2 * below - 1) + 2 * density - 1 / math.sqrt(math.pi))


def test_the_best_noise_of_one_answer_is_the_closed_forms() -> None:
    generator = torch.Generator().manual_seed(0)
    target = 0.7 * torch.randn(3000, 1, generator=generator, dtype=torch.float64)
    batch = Batch((), target, torch.arange(3000))
    output = torch.zeros(1, 3000, 1, dtype=torch.float64)
    found = choose_noise(CRPS, [output], [target], Noise(batch.sample_id, 0))
    errors = target[:, 0].numpy()
    best = minimize_scalar(lambda s: normal_crps(errors, s).mean(), bounds=(0.1, 3), method="bounded").x
    assert found == pytest.approx(best, rel=0.03)
    score = float(crps(Noise(batch.sample_id, 0).widened(output, found), target).mean())
    assert score == pytest.approx(normal_crps(errors, best).mean(), rel=0.01)
    assert float(covered(Noise(batch.sample_id, 0).widened(output, found), target).mean()) == pytest.approx(90, abs=3)


def test_no_noise_where_the_draws_are_the_distribution() -> None:
    generator = torch.Generator().manual_seed(0)
    draws = torch.randn(POINTS, 400, 1, generator=generator, dtype=torch.float64)
    target = torch.randn(400, 1, generator=generator, dtype=torch.float64)
    noise = Noise(torch.arange(400), 0)
    assert choose_noise(CRPS, [draws[:, :150], draws[:, 150:]], [target[:150], target[150:]], noise) < 0.3
    assert choose_noise(CRPS, [torch.zeros(1, 5, 1)], [torch.zeros(5, 1)], Noise(torch.arange(5), 0)) == 0


@pytest.fixture(scope="module")
def numbers(tmp_path_factory: pytest.TempPathFactory) -> Artifacts:
    """A run of a task with metrics of distributions, and the three rows that give others."""
    values = toy_params(**GROUPS["head"])
    values["controls"] |= {
        "deep_ensemble": {"members": [3], "epochs": 4},
        "mean_variance": {"epochs": 20, "patience": 20, "lr": 0.01},
    }
    values["controls"]["fit"] = [*values["controls"]["fit"], "deep_ensemble", "mean_variance"]
    values["evaluate"]["rows"] = [*values["evaluate"]["rows"], "deep_ensemble", "mean_variance"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ToyTask, "metrics", regression_metrics())
        return run_of(tmp_path_factory.mktemp("numbers"), "toy", values)


def test_every_row_chooses_noise_and_is_scored_with_it(numbers: Artifacts) -> None:
    results = [Result(**r) for r in read_json(numbers.evaluation / "table.json")["results"]]
    found = {(r.row, r.metric, r.adjusted): r for r in results}
    rows = {r.row for r in results}
    assert {row for row, metric, adjusted in found if adjusted} == rows
    assert {metric for _, metric, adjusted in found if adjusted} == {"crps", "coverage_90"}
    for row in rows:
        plain, wide = found[row, "crps", False], found[row, "crps", True]
        assert wide.noise is not None
        assert plain.noise is None
        assert wide.p_holm is None if row == "base" else wide.p_holm is not None
        if row not in ("bound", "mean_variance"):  # one network or few: noise must help
            assert wide.noise > 0
            assert wide.mean is not None
            assert plain.mean is not None
            assert wide.mean < plain.mean
    assert found["base", "coverage_90", False].mean is None
    metrics = read_json(numbers.evaluation / "metrics.json")
    assert metrics["ocd"]["crps_with_noise"] == found["ocd", "crps", True].mean
    assert metrics["ocd"]["noise"] == found["ocd", "crps", True].noise
    columns = sample_columns(numbers)
    for row in rows:
        of_samples = columns[f"{row}_crps_with_noise"].mean()
        assert of_samples == pytest.approx(found[row, "crps", True].mean, rel=1e-5)


def test_the_table_has_columns_with_noise(numbers: Artifacts) -> None:
    entry = merged_results(run_tables("toy", numbers.root))[0]
    columns, rows = columns_and_rows(entry)
    assert columns[-4:] == ["crps ↓", "coverage 90 %", "crps +σ ↓", "coverage 90 +σ %"]
    base = rows[0]
    assert base[columns.index("coverage 90 %")] == "–"
    assert float(base[-2]) < float(base[columns.index("crps ↓")])
    assert any(line.startswith("+σ: after Gaussian noise") for line in notes(entry))


def test_rows_keep_their_files_through_the_stages(numbers: Artifacts) -> None:
    controls = read_json(numbers.controls / "metrics.json")
    assert set(controls["deep_ensemble"]) == {"member_0", "member_1"}
    assert controls["cost_flops"]["deep_ensemble"]["total"] <= controls["cost_flops"]["deep_ensemble"]["allowed"]
    assert Path(numbers.controls / "model.safetensors").is_file()
