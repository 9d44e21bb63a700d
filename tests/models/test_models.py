"""Base networks by name: built with their arguments, refused in one line."""

from types import FunctionType

import pytest
import torch
from torch import nn

from ocd_core.errors import UserError
from ocd_core.models import MODELS, build_model
from ocd_core.models.mlp import MLP


class Shift(nn.Module):
    def __init__(self, by: float) -> None:
        super().__init__()
        self.by = by


def number(value: int) -> nn.Module:  # which is not true
    return value


def test_a_model_gets_its_arguments() -> None:
    model = build_model("mlp", {"in_features": 4, "out_features": 2, "hidden": [3]})
    assert isinstance(model, MLP)
    assert model(torch.zeros(5, 4)).shape == (5, 2)
    assert build_model(f"{__name__}:Shift", {"by": 0.5}).by == 0.5


def test_every_model_is_a_module_class_or_a_function() -> None:
    assert {"lenet5", "mlp", "rtdl_mlp", "tinynerf"} <= set(MODELS.own())
    for name in MODELS.own():
        made = MODELS.load(name)
        assert isinstance(made, FunctionType) or issubclass(made, nn.Module)


@pytest.mark.parametrize(
    ("name", "args", "message"),
    [
        ("nope", {}, "unknown model 'nope'; known are .*mlp"),
        ("mlp", {"in_features": 4}, "model 'mlp' does not accept these arguments: .*out_features"),
        ("mlp", {"in_features": 4, "out_features": 2, "depth": 3}, "does not accept these arguments: .*depth"),
        ("mlp", {"in_features": 4, "out_features": 0}, "does not accept these arguments: every width must be"),
        ("ocd_core.nothing:Net", {}, "cannot import model 'ocd_core.nothing:Net'"),
        (f"{__name__}:number", {"value": 3}, r"'tests\.models\.test_models:number' makes a int, not a torch\.nn\.Mod"),
    ],
)
def test_what_makes_no_model_is_named(name: str, args: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message) as error:
        build_model(name, args)
    assert "\n" not in str(error.value)
