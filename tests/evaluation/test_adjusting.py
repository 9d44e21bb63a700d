"""What rows choose on validation: each from its own answers, and nothing for a row that failed."""

import pytest
import torch
import torch.nn.functional as F

from ocd_core.evaluation.adjusting import choose_adjustments, score_of_draws
from ocd_core.evaluation.noise import Noise, choose_noise
from ocd_core.evaluation.temperature import choose_temperature
from ocd_core.samples import Batch
from ocd_core.tasks.regression import regression_metrics
from tests.support.arrays import ArrayTask


class Numbers(ArrayTask):
    @property
    def metrics(self):
        return regression_metrics()


class Classes(ArrayTask):
    def log_probabilities(self, output):
        return F.log_softmax(output, -1)


def batches(classes: bool) -> list[Batch]:
    g = torch.Generator().manual_seed(0)
    y = torch.randint(3, (40,), generator=g) if classes else torch.randn(40, 1, generator=g)
    return [Batch((), y[:25], torch.arange(25)), Batch((), y[25:], torch.arange(25, 40))]


def test_noise_of_each_row_from_its_own_networks() -> None:
    task, g = Numbers(), torch.Generator().manual_seed(1)
    score, parts = score_of_draws(task), batches(classes=False)
    assert score is not None
    assert score.name == "crps"
    near = [torch.randn(4, len(b), 1, generator=g) * 0.1 + b.target for b in parts]
    far = [torch.zeros(len(b), 1) for b in parts]
    targets = [b.target for b in parts]
    answers = [
        (b, [("near", n.mean(0), n), ("far", f, None), *([("failed", f, None)] if i == 0 else [])])
        for i, (b, n, f) in enumerate(zip(parts, near, far, strict=True))
    ]
    found = choose_adjustments(task, False, 5, iter(answers))
    assert found.temperatures == {}
    assert found.noise == {
        "near": choose_noise(score, near, targets, Noise(torch.arange(40), 5)),
        "far": choose_noise(score, [f[None] for f in far], targets, Noise(torch.arange(40), 5)),
    }
    assert found.noise["near"] < 0.3 < found.noise["far"]


def test_temperatures_of_classes() -> None:
    task, parts = Classes(), batches(classes=True)
    sure = [10.0 * F.one_hot(b.target, 3).float().roll(i, 1) for i, b in enumerate(parts)]
    found = choose_adjustments(task, True, 0, [(b, [("sure", s, None)]) for b, s in zip(parts, sure, strict=True)])
    assert found.noise == {}
    expected = choose_temperature(task, sure, [b.target for b in parts])
    assert found.temperatures == {"sure": pytest.approx(expected)}
    assert expected > 1


def test_nothing_to_choose() -> None:
    assert score_of_draws(ArrayTask()) is None
