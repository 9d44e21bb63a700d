"""LeNet5, as in the code that the paper's authors released."""

import torch.nn.functional as F
from torch import Tensor, nn


class LeNet5(nn.Module):
    """conv1 - conv2 - conv3 - fc1 (120 -> 84) - fc2 (84 -> 10), ReLU, max pooling.

    Input: (N, 1, 28, 28) grey images in 0..1, padded by two pixels to LeNet's 32x32. Output: (N, classes) logits.
    """

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 6, 5, padding=2)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.conv3 = nn.Conv2d(16, 120, 5)
        self.fc1 = nn.Linear(120, 84)
        self.fc2 = nn.Linear(84, classes)

    def forward(self, image: Tensor) -> Tensor:
        """Logits of a batch of images."""
        h = F.max_pool2d(F.relu(self.conv1(image)), 2)
        h = F.max_pool2d(F.relu(self.conv2(h)), 2)
        h = F.relu(self.conv3(h)).flatten(1)
        h = F.relu(self.fc1(h))
        logits: Tensor = self.fc2(h)
        return logits


MODEL = LeNet5
