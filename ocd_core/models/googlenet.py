"""GoogLeNet (Szegedy et al., 2015) for images of 32x32 pixels, as is common for CIFAR10.

As in the usual implementation, a 3x3 convolution with 192 channels replaces the layers before the first inception
block, every convolution has batch normalisation, two 3x3 convolutions replace each 5x5, and there are no auxiliary
heads. The layers have its names (`pre_layers`, `a3` ... `b5`, `linear`), so that weights trained with it load.

Dims: N images, C channels, H height, W width.
"""

from typing import ClassVar

import torch
from torch import Tensor, nn

# the table of the paper, per inception block: 1x1, 3x3 reduce, 3x3, 5x5 reduce, 5x5, pool projection
_PRE = 192
_BLOCKS = {
    "a3": (64, 96, 128, 16, 32, 32),
    "b3": (128, 128, 192, 32, 96, 64),
    "a4": (192, 96, 208, 16, 48, 64),
    "b4": (160, 112, 224, 24, 64, 64),
    "c4": (128, 128, 256, 24, 64, 64),
    "d4": (112, 144, 288, 32, 64, 64),
    "e4": (256, 160, 320, 32, 128, 128),
    "a5": (256, 160, 320, 32, 128, 128),
    "b5": (384, 192, 384, 48, 128, 128),
}
_POOLED = ("b3", "e4")  # blocks before a maximum over 3x3 pixels with stride 2
_SIZE = 32  # pixels


def _convolution(inside: int, outside: int, kernel: int) -> list[nn.Module]:
    return [nn.Conv2d(inside, outside, kernel, padding=kernel // 2), nn.BatchNorm2d(outside), nn.ReLU()]


class Inception(nn.Module):
    """Four branches whose outputs are side by side: 1x1; 1x1, 3x3; 1x1, 3x3, 3x3; pooling, 1x1.

    Input: (N, inside, H, W). Output: (N, one + three + five + pool, H, W).

    Args:
        inside: the number of input channels.
        one, three, five, pool: the number of channels that each branch gives.
        reduce_three, reduce_five: the number of channels of the 1x1 convolutions before the larger ones.
    """

    def __init__(
        self, inside: int, one: int, reduce_three: int, three: int, reduce_five: int, five: int, pool: int
    ) -> None:
        super().__init__()
        self.b1 = nn.Sequential(*_convolution(inside, one, 1))
        self.b2 = nn.Sequential(*_convolution(inside, reduce_three, 1), *_convolution(reduce_three, three, 3))
        self.b3 = nn.Sequential(
            *_convolution(inside, reduce_five, 1), *_convolution(reduce_five, five, 3), *_convolution(five, five, 3)
        )
        self.b4 = nn.Sequential(nn.MaxPool2d(3, stride=1, padding=1), *_convolution(inside, pool, 1))

    def forward(self, x: Tensor) -> Tensor:
        """The branches' outputs along the channels."""
        return torch.cat([self.b1(x), self.b2(x), self.b3(x), self.b4(x)], 1)


class GoogLeNet(nn.Module):
    """`pre_layers` - `a3` `b3` - pooling - `a4` ... `e4` - pooling - `a5` `b5` - average - `linear`.

    Input: (N, channels, 32, 32) images. Output: (N, classes) logits.

    Args:
        classes: the number of classes.
        width: multiplies every number of channels (rounded, at least 1); 1 is the usual network of 6.2 million weights.
        channels: of the images.
    """

    # names of a checkpoint's tensors that begin so are not loaded: the heads that only train the network
    auxiliary: ClassVar[tuple[str, ...]] = ("aux1.", "aux2.")

    def __init__(self, classes: int = 10, width: float = 1.0, channels: int = 3) -> None:
        super().__init__()
        if classes < 2 or channels < 1 or not width > 0:
            raise ValueError("classes must be at least 2, channels at least 1, width above 0")
        widths = {name: [max(1, round(width * c)) for c in block] for name, block in _BLOCKS.items()}
        inside = max(1, round(width * _PRE))
        self.pre_layers = nn.Sequential(*_convolution(channels, inside, 3))
        self.maxpool = nn.MaxPool2d(3, stride=2, padding=1)
        for name, (one, reduce_three, three, reduce_five, five, pool) in widths.items():
            self.add_module(name, Inception(inside, one, reduce_three, three, reduce_five, five, pool))
            inside = one + three + five + pool
        self.avgpool = nn.AvgPool2d(_SIZE // 4, stride=1)
        self.linear = nn.Linear(inside, classes)
        # on a CPU, training takes half of the time with the channels innermost
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, image: Tensor) -> Tensor:
        """Logits of a batch of images."""
        h = self.pre_layers(image)
        for name in _BLOCKS:
            h = self.get_submodule(name)(h)
            if name in _POOLED:
                h = self.maxpool(h)
        logits: Tensor = self.linear(self.avgpool(h).flatten(1))
        return logits


MODEL = GoogLeNet
