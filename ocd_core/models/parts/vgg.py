"""The convolutional part of VGG11 (Simonyan and Zisserman, 2015, Tab. 1, column A), as a fixed image encoder."""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ocd_core.errors import UserError
from ocd_core.files import is_shortage
from ocd_core.weights import is_safetensors

_PLAN = (64, "pool", 128, "pool", 256, 256, "pool", 512, 512, "pool", 512, 512, "pool")
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet's colours, which the weights expect


class VGG11Features(nn.Module):
    """Eight 3x3 convolutions with ReLU and five poolings, with parameters named `features.<n>` as in published weights.

    Input: (N, 3, H, W) colours in 0..1, H and W at least 32. Output: (N, 512, H // 32, W // 32).
    """

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 3
        for step in _PLAN:
            if isinstance(step, int):
                layers += [nn.Conv2d(channels, step, 3, padding=1), nn.ReLU()]
                channels = step
            else:
                layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)

    def forward(self, image: Tensor) -> Tensor:
        """Feature maps of a batch of images."""
        mean, std = (image.new_tensor(v)[:, None, None] for v in (_MEAN, _STD))
        maps: Tensor = self.features((image - mean) / std)
        return maps


def load_vgg11_features(path: Path) -> VGG11Features:
    """VGG11Features with published weights, frozen, in eval mode.

    Args:
        path: a safetensors file, or a torch file without pickled code, of a whole VGG11 or of its `features.` part.
            Weights of the classifier are neither needed nor read.

    Raises:
        UserError: the file is missing or unreadable, or its `features.` weights are not VGG11's.
    """
    if not path.is_file():
        raise UserError(f"VGG11 weights {path} do not exist; give the path of a file, or null for the fixed encoder")
    try:
        if is_safetensors(path):  # in a bundle the file has no suffix
            from safetensors.torch import load_file

            weights = load_file(path)
        else:
            weights = torch.load(path, map_location="cpu", weights_only=True)
        weights = {k: v for k, v in weights.items() if k.startswith("features.")}
    except Exception as error:  # damaged files raise many kinds
        if is_shortage(error):
            raise
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"cannot read VGG11 weights {path}: {reason}") from error
    model = VGG11Features()
    try:
        model.load_state_dict(weights)
    except RuntimeError as error:
        reason = " ".join(str(error).split()[:40])
        raise UserError(f"{path} does not hold the weights of VGG11's features: {reason}") from error
    return model.eval().requires_grad_(False)


def pooled_features(model: VGG11Features, image: Tensor, size: int = 2) -> Tensor:
    """The last feature maps, averaged on a size x size grid, (N, 512 · size²); small images are enlarged to 64x64."""
    if min(image.shape[-2:]) < 64:
        image = F.interpolate(image, size=(64, 64), mode="bilinear", align_corners=False)
    return F.adaptive_avg_pool2d(model(image), size).flatten(1)


MODEL = VGG11Features
