"""Several learning rates from one start, against a training of each alone."""

import math

import pytest
from torch import nn

from ocd_core.errors import DivergedError
from ocd_core.training.loop import optimise
from ocd_core.training.tried import Resume, optimise_with_rates
from tests.training.test_loop import make, settings

RATES = [0.3, 0.02, 0.1]


def alone(lr):
    module, objective = make()
    found = optimise(module, objective, settings(lr=lr, keep_start=True), 0, "toy")
    return module.weight.item(), found


def test_it_keeps_the_rate_that_is_best_on_validation():
    module, objective = make()
    rows, done = [], []
    found = optimise_with_rates(
        module, objective, settings(), RATES, 0, "toy", lambda k, _t: done.append(k), rows.append
    )
    each = {lr: alone(lr) for lr in RATES}
    best = min(RATES, key=lambda lr: each[lr][1].best_loss)
    assert best != RATES[0]
    assert found.lr == best
    assert found.losses == {lr: each[lr][1].best_loss for lr in RATES}
    assert module.weight.item() == each[best][0]
    assert found.start_loss == pytest.approx(1.7**2)
    assert found.updates == 90
    assert rows == found.curve
    assert [row["update"] for row in rows] == [30 * i + k for i in range(3) for k in range(0, 31, 5)]
    assert done == list(range(1, 91))
    for i, lr in enumerate(RATES):
        mine = [{**row, "update": row["update"] + 30 * i, "tried_lr": lr} for row in each[lr][1].curve]
        assert mine == rows[7 * i : 7 * i + 7]


def test_one_rate_is_an_ordinary_training():
    module, objective = make()
    optimise_with_rates(module, objective, settings(), [0.1], 0, "toy")
    assert module.weight.item() == alone(0.1)[0]


class Explosive:
    """Above a rate of 1 the loss is not a number after some updates."""

    def __init__(self, module: nn.Linear) -> None:
        self.module = module

    def loss(self, update, part, parts):
        weight = self.module.weight
        return (weight * math.nan if weight.abs() > 10 else (weight - 0.3).square()).sum()

    def validate(self):
        return {"val_loss": float((self.module.weight - 0.3).square())}


def test_a_rate_that_diverges_is_only_bad():
    module, _ = make()
    found = optimise_with_rates(module, Explosive(module), settings(), [50.0, 0.1], 0, "toy")
    assert found.losses[50.0] == math.inf
    assert found.lr == 0.1
    assert module.weight.item() == pytest.approx(0.3, abs=0.1)
    module, _ = make()
    with pytest.raises(DivergedError, match="lower its lr"):
        optimise_with_rates(module, Explosive(module), settings(), [50.0], 0, "toy")


def test_checkpoints_of_rates_do_not_mix(tmp_path):
    resume = Resume(tmp_path, 10, "mine")
    module, objective = make()
    first = optimise_with_rates(module, objective, settings(), RATES, 0, "toy", resume=resume)
    assert sorted(p.name for p in tmp_path.iterdir()) == [f"checkpoint-{i}.pt" for i in range(3)]
    done = []
    again, objective = make()
    found = optimise_with_rates(
        again, objective, settings(), RATES, 0, "toy", lambda k, _t: done.append(k), resume=resume
    )
    assert done == []
    assert found.losses == first.losses
    assert again.weight.item() == module.weight.item()
