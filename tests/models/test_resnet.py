"""The narrow residual network against a forward pass by hand."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ocd_core.errors import UserError
from ocd_core.models import build_model
from ocd_core.models.resnet import ResNet
from ocd_core.network.cut import CutModel


def images() -> Tensor:
    return torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))


def randomised(model: ResNet) -> ResNet:
    torch.manual_seed(1)
    for tensor in model.state_dict().values():
        if tensor.is_floating_point():
            tensor.copy_(torch.rand_like(tensor) * 0.2 + 0.1 * (tensor.dim() == 1))
    return model.eval()


@torch.no_grad()
def test_the_output_by_hand() -> None:
    model = randomised(ResNet(5, width=4, blocks=[1, 2], stem_stride=2))
    w = model.state_dict()

    def norm(x: Tensor, name: str) -> Tensor:
        mean, var = w[f"{name}.running_mean"], w[f"{name}.running_var"]
        x = (x - mean.view(-1, 1, 1)) / (var.view(-1, 1, 1) + 1e-5).sqrt()
        return x * w[f"{name}.weight"].view(-1, 1, 1) + w[f"{name}.bias"].view(-1, 1, 1)

    h = F.relu(norm(F.conv2d(images(), w["conv1.weight"], stride=2, padding=1), "bn1"))
    for at, stride in (("stages.0.0", 1), ("stages.1.0", 2), ("stages.1.1", 1)):
        inner = F.relu(norm(F.conv2d(h, w[f"{at}.conv1.weight"], stride=stride, padding=1), f"{at}.bn1"))
        inner = norm(F.conv2d(inner, w[f"{at}.conv2.weight"], padding=1), f"{at}.bn2")
        if stride == 2:
            h = norm(F.conv2d(h, w[f"{at}.shortcut.0.weight"], stride=2), f"{at}.shortcut.1")
        h = F.relu(inner + h)
    assert h.shape == (3, 8, 4, 4)
    wanted = h.flatten(2).mean(2) @ w["fc.weight"].T + w["fc.bias"]
    torch.testing.assert_close(model(images()), wanted, rtol=1e-4, atol=1e-5)


def test_the_default_is_resnet_18_for_small_images() -> None:
    assert sum(p.numel() for p in ResNet(10).parameters()) == 11_173_962


@pytest.mark.parametrize("layer", ["conv1", "stages.1.0.conv2", "fc"])
def test_layers_move_with_the_prefix_run_once(layer: str) -> None:
    cut_model = CutModel(randomised(ResNet(5, width=4, blocks=[1, 1])), layer)
    cut = cut_model.prefix((images(),))
    assert cut_model.traced
    torch.testing.assert_close(cut_model.forward(cut)[1], cut_model.network(images()).double(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("change", [{"classes": 0}, {"width": 0}, {"blocks": []}, {"blocks": [1, 0]}])
def test_impossible_sizes(change: dict[str, object]) -> None:
    with pytest.raises(UserError, match="must be at least 1"):
        build_model("resnet", {"classes": 2, **change})
