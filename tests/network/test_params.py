"""Params of the base network: what would have no effect is refused."""

from typing import Any

import pytest

from ocd_core.network.params import BaseParams
from ocd_core.training.rates import learning_rate
from tests.support.params import base_params


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"momentum": 0.9}, "momentum is for optimizer sgd"),
        ({"optimizer": "sgd", "nesterov": True}, "nesterov needs optimizer sgd with a momentum"),
        ({"lr_steps": [3]}, "lr_steps lists epochs for lr_schedule steps"),
        ({"lr_schedule": "steps"}, "lr_steps lists epochs for lr_schedule steps"),
    ],
)
def test_params_that_would_have_no_effect_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        base_params("mlp", {}, **{"epochs": 1, "patience": 1, "batch_size": 4, "lr": 0.1, **changes})


def test_params_that_have_an_effect_are_taken() -> None:
    """What is refused for one optimiser or schedule belongs to another."""
    rest: dict[str, Any] = {"epochs": 4, "patience": 1, "batch_size": 4, "lr": 0.1}
    found = base_params(
        "mlp", {}, **rest, optimizer="sgd", momentum=0.9, nesterov=True, lr_schedule="steps", lr_steps=[2, 3]
    )
    assert (found.momentum, found.nesterov, found.lr_steps) == (0.9, True, [2, 3])


def test_a_shorter_training_has_the_same_shape() -> None:
    """With ten updates an epoch, each rate is that of the tenth update at the same place of the whole training."""
    whole = base_params(
        "mlp",
        {},
        patience=9,
        batch_size=4,
        lr=0.1,
        epochs=20,
        warmup=4.0,
        lr_schedule="steps",
        lr_steps=[5, 15],
        checkpoint="x.pt",
    )
    short = whole.shortened(2, lr=0.5)
    assert (short.epochs, short.checkpoint, short.lr) == (2, None, 0.5)

    def rates(params: BaseParams) -> list[float]:
        count = params.epochs * 10
        marks = [step * 10 for step in params.lr_steps]
        return [learning_rate(1.0, k, count, "steps", params.warmup * 10, marks, 0.1) for k in range(count)]

    assert rates(short) == pytest.approx(rates(whole)[9::10])
