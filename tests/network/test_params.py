"""Params of the base network: what would have no effect is refused."""

from typing import Any

import pytest

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
