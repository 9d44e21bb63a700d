"""The networks of Gorishniy et al.: a plain forward pass, and without their package."""

import builtins
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from ocd_core.errors import UserError
from ocd_core.models import build_model
from ocd_core.network.cut import CutModel


def test_the_mlp_by_hand() -> None:
    model = build_model(
        "rtdl_mlp", {"in_features": 3, "out_features": 2, "blocks": 2, "width": 4, "dropout": 0.5}
    ).eval()
    x = torch.randn(5, 3)
    w = dict(model.named_parameters())
    h = F.relu(x @ w["blocks.0.linear.weight"].T + w["blocks.0.linear.bias"])
    h = F.relu(h @ w["blocks.1.linear.weight"].T + w["blocks.1.linear.bias"])
    torch.testing.assert_close(model(x), h @ w["output.weight"].T + w["output.bias"])


@pytest.mark.parametrize(
    ("name", "args", "layer"),
    [
        ("rtdl_mlp", {"blocks": 2, "width": 4}, "blocks.0.linear"),
        ("rtdl_resnet", {"blocks": 2, "width": 4, "hidden": 6}, "input_projection"),
    ],
)
def test_the_first_layer_can_move(name: str, args: dict[str, Any], layer: str) -> None:
    model = build_model(name, {"in_features": 3, "out_features": 1, **args}).eval()
    x = torch.randn(5, 3)
    cut = CutModel(model, layer).prefix((x,))
    torch.testing.assert_close(cut.layer_input_NI.float(), x)


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any, **more: Any) -> Any:
        if name == "rtdl_revisiting_models":
            raise ImportError(name)
        return real(name, *rest, **more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UserError, match=r"pip install 'ocd-core\[tabular\]'"):
        build_model("rtdl_mlp", {"in_features": 3, "out_features": 1, "blocks": 1, "width": 2})
