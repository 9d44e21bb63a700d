"""What trainings over Δ take: the arithmetic with a clock of its own, and trials of every representation."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from ocd_core.config import Params, parse_params
from ocd_core.network.cut import CutModel
from ocd_core.network.training import seeded_network
from ocd_core.scaffold import trials
from ocd_core.scaffold.trials import SAMPLES, Trial, Trials, activations, kernel_seconds, tried
from tests.support.toy import PLANE


class Clock:
    """Stands still unless it is told to go on."""

    def __init__(self) -> None:
        self.now, self.calls = 0.0, 0

    def training(self, start: float, update: float, validation: float = 0.125) -> Any:
        def train(updates: int, every: int) -> None:
            self.calls += 1
            self.now += start + updates * update + updates // every * validation

        return train

    def perf_counter(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    found = Clock()
    monkeypatch.setattr(trials, "time", found)
    return found


def test_start_updates_and_validations_are_told_apart(clock: Clock) -> None:
    assert tried(clock.training(0.5, 0.25, 0.125), 32) == Trial(0.25, 0.125, 0.5, 32)
    assert clock.calls == 4


def test_a_slow_training_is_tried_once(clock: Clock) -> None:
    assert tried(clock.training(5.0, 20.0, 1.0), 32) == Trial(26.0, 26.0, 0.0, 32)
    assert clock.calls == 1


def test_minutes_count_updates_and_validations_of_the_whole_split() -> None:
    assert Trial(0.5, 2.0, 9.0, 32).minutes(600, 100, 320) == pytest.approx((9 + 600 * 0.5 + 6 * 10 * 2.0) / 60)
    assert Trial(0.5, 2.0, 9.0, 32).minutes(600, 100, 4) == pytest.approx((9 + 600 * 0.5 + 6 * 2.0) / 60)


def test_activations_are_what_autograd_keeps() -> None:
    network, x = nn.Linear(4, 8), torch.randn(5, 4)
    with activations() as kept:
        network(x).square().sum().backward()
    assert kept[0] == 4 * (5 * 4 + 5 * 8)  # the input for the weight, and what is squared


def test_larger_kernels_take_the_cube(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trials, "seconds", lambda work: 2.0)
    assert kernel_seconds(300) == 2.0
    assert kernel_seconds(600) == 16.0


def of_toy(values: dict[str, Any], layer: str, folder: Path, **groups: dict[str, Any]) -> tuple[Params, Trials]:
    for group, keys in groups.items():
        values = {**values, group: {**values[group], **keys}}
    params = parse_params(values, "toy")
    task = params.build_task()
    task.prepare(folder)
    model = CutModel(seeded_network(task, 0), layer, "float32")
    return params, Trials(params, task, model, task.open(folder, "train"), 64)


TUNED = {"updates": 10, "validate_every": 5, "lrs": [1e-3, 1e-2], "batch_size": 8, "draws": 2}


@pytest.mark.parametrize("name", ["factored", "pca", "dense"])
def test_every_training_is_tried(name: str, tmp_path: Path) -> None:
    representation = {"name": name, "components": 2, "metric": "euclidean"}
    group = {"representation": representation}
    params, found = of_toy(PLANE, "layers.0", tmp_path, diffusion=group, tuning=TUNED)
    assert found.diffusion()[0] > 0
    scale = found.scale()
    assert (scale is None) == (name == "pca")
    assert scale is None or (scale[0] > 0 and scale[1] > 0)
    minutes, memory = found.tuning()
    assert minutes > 0
    assert memory > 0
    drawn = found.predictor().predict(found.samples.split.batch(torch.arange(3)).inputs, draws=2)
    assert drawn.output.shape == (3, 2)
    assert found.space().size == {"factored": 6, "pca": 2, "dense": params.controls.components}[name]
    assert params.diffusion.representation.name == name


def test_parts_of_a_training_add_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With an update of one second and nothing else: as many seconds as updates, with each learning rate and width."""
    monkeypatch.setattr(trials, "tried", lambda train, samples: train(1, 1) or Trial(1.0, 0.0, 0.0, SAMPLES))
    group = {"updates": 120, "batch_size": 8, "accumulate": 2}
    params, found = of_toy(PLANE, "layers.0", tmp_path, diffusion=group, tuning={**TUNED, "accumulate": 2})
    assert found.diffusion()[0] == pytest.approx(120 * 2 / 60)  # two parts
    scale = found.scale()
    assert scale is not None
    assert scale[0] == pytest.approx((params.scale.updates + params.scale.warm_start.updates) / 60)
    assert found.tuning()[0] == pytest.approx(2 * 10 * 2 / 60)
