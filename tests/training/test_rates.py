import math

import pytest
import torch
from torch.optim import lr_scheduler

from ocd_core.training.rates import learning_rate


def scheduled(make, updates: int) -> list[float]:
    """The rates that a scheduler of torch gives."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.3)
    scheduler = make(optimizer)
    rates = []
    for _ in range(updates):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


def test_constant():
    assert [learning_rate(0.3, k, 10) for k in (0, 5, 9)] == [0.3, 0.3, 0.3]


def test_cosine_is_torchs():
    wanted = scheduled(lambda o: lr_scheduler.CosineAnnealingLR(o, 12), 12)
    assert [learning_rate(0.3, k, 12, "cosine") for k in range(12)] == pytest.approx(wanted)


def test_steps_are_torchs():
    wanted = scheduled(lambda o: lr_scheduler.MultiStepLR(o, [3, 7], 0.2), 10)
    found = [learning_rate(0.3, k, 10, "steps", steps=[3, 7], factor=0.2) for k in range(10)]
    assert found == pytest.approx(wanted)


def test_warm_up_rises_from_nothing_and_multiplies_the_schedule():
    assert [learning_rate(1.0, k, 100, warmup=4) for k in range(6)] == [0.25, 0.5, 0.75, 1.0, 1.0, 1.0]
    found = [learning_rate(2.0, k, 100, "cosine", warmup=2) for k in (0, 50, 99)]
    assert found == pytest.approx([1.0, 1.0, 2.0 * math.sin(math.pi / 200) ** 2])
    assert learning_rate(1.0, 0, 100, warmup=2.5) == pytest.approx(0.4)
