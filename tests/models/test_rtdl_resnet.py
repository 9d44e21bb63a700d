"""The residual network of Gorishniy et al.: a plain forward pass, and its first layer as the one that moves."""

import torch
import torch.nn.functional as F
from torch import Tensor

from ocd_core.models import build_model
from ocd_core.network.cut import CutModel

ARGS = {"in_features": 3, "out_features": 1, "blocks": 1, "width": 4, "hidden": 6}


def test_the_forward_pass_by_hand() -> None:
    model = build_model("rtdl_resnet", ARGS).eval()
    w = dict(model.named_parameters())

    def normalised(h: Tensor, name: str) -> Tensor:  # fresh running statistics: mean 0, variance 1
        return h / (1 + 1e-5) ** 0.5 * w[f"{name}.weight"] + w[f"{name}.bias"]

    x = torch.randn(5, 3)
    h = x @ w["input_projection.weight"].T + w["input_projection.bias"]
    inner = normalised(h, "blocks.0.normalization") @ w["blocks.0.linear1.weight"].T + w["blocks.0.linear1.bias"]
    h = h + F.relu(inner) @ w["blocks.0.linear2.weight"].T + w["blocks.0.linear2.bias"]
    expected = F.relu(normalised(h, "output.normalization")) @ w["output.linear.weight"].T + w["output.linear.bias"]
    torch.testing.assert_close(model(x), expected)


def test_the_first_layer_can_move() -> None:
    model, x = build_model("rtdl_resnet", ARGS).eval(), torch.randn(5, 3)
    cut = CutModel(model, "input_projection").prefix((x,))
    torch.testing.assert_close(cut.layer_input_NI.float(), x)
