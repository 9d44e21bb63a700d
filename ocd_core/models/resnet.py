"""A residual network for small images (He et al., 2016), as narrow as a CPU needs it.

Dims: N images, C channels, H height, W width.
"""

from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn


class BasicBlock(nn.Module):
    """conv1 - bn1 - ReLU - conv2 - bn2, plus the input (through a 1x1 convolution if its shape differs), ReLU."""

    def __init__(self, inside: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inside, width, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1 or inside != width:
            self.shortcut = nn.Sequential(nn.Conv2d(inside, width, 1, stride=stride, bias=False), nn.BatchNorm2d(width))

    def forward(self, maps: Tensor) -> Tensor:
        """Feature maps of a batch."""
        h = F.relu(self.bn1(self.conv1(maps)))
        h = self.bn2(self.conv2(h))
        return F.relu(h + self.shortcut(maps))


class ResNet(nn.Module):
    """`conv1` (3x3), `stages` of basic blocks, each of twice the width and half the size of the one before, mean, `fc`.

    Input: (N, channels, H, W). Output: (N, classes) logits. Width 64, blocks [2, 2, 2, 2] and stem_stride 1 are
    ResNet-18 for small images.

    Args:
        classes: the number of classes.
        width: channels of the first stage.
        blocks: the number of blocks of each stage.
        stem_stride: of `conv1`; 2 halves the images at once, which costs a quarter.
        channels: of the images.
    """

    def __init__(
        self,
        classes: int,
        width: int = 64,
        blocks: Sequence[int] = (2, 2, 2, 2),
        stem_stride: int = 1,
        channels: int = 3,
    ) -> None:
        super().__init__()
        if min(classes, width, stem_stride, channels, len(blocks), *blocks) < 1:
            raise ValueError("classes, width, stem_stride, channels and every number of blocks must be at least 1")
        self.conv1 = nn.Conv2d(channels, width, 3, stride=stem_stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.stages = nn.ModuleList()
        inside = width
        for level, count in enumerate(blocks):
            outside = width * 2**level
            strides = [1 if level == 0 else 2] + [1] * (count - 1)
            stage = nn.Sequential()
            for stride in strides:
                stage.append(BasicBlock(inside, outside, stride))
                inside = outside
            self.stages.append(stage)
        self.fc = nn.Linear(inside, classes)

    def forward(self, image: Tensor) -> Tensor:
        """Logits of a batch of images."""
        h = F.relu(self.bn1(self.conv1(image)))
        for stage in self.stages:
            h = stage(h)
        logits: Tensor = self.fc(h.mean((-2, -1)))
        return logits


MODEL = ResNet
