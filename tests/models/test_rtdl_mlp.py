"""The perceptron of Gorishniy et al.: a plain forward pass, and its first layer as the one that moves."""

import torch
import torch.nn.functional as F

from ocd_core.models import build_model
from ocd_core.network.cut import CutModel


def test_the_forward_pass_by_hand() -> None:
    args = {"in_features": 3, "out_features": 2, "blocks": 2, "width": 4, "dropout": 0.5}
    model = build_model("rtdl_mlp", args).eval()
    x = torch.randn(5, 3)
    w = dict(model.named_parameters())
    h = F.relu(x @ w["blocks.0.linear.weight"].T + w["blocks.0.linear.bias"])
    h = F.relu(h @ w["blocks.1.linear.weight"].T + w["blocks.1.linear.bias"])
    torch.testing.assert_close(model(x), h @ w["output.weight"].T + w["output.bias"])


def test_the_first_layer_can_move() -> None:
    model = build_model("rtdl_mlp", {"in_features": 3, "out_features": 1, "blocks": 2, "width": 4}).eval()
    x = torch.randn(5, 3)
    cut = CutModel(model, "blocks.0.linear").prefix((x,))
    torch.testing.assert_close(cut.layer_input_NI.float(), x)
