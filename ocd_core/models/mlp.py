"""A multi-layer perceptron for vectors."""

import itertools
from collections.abc import Sequence

import torch.nn.functional as F
from torch import Tensor, nn


class MLP(nn.Module):
    """Linear layers `layers.0` ... with ReLU between them.

    Input: (N, in_features). Output: (N, out_features).
    """

    def __init__(self, in_features: int, out_features: int, hidden: Sequence[int] = (64, 64)) -> None:
        super().__init__()
        if in_features < 1 or out_features < 1 or any(h < 1 for h in hidden):
            raise ValueError("every width must be at least 1")
        widths = [in_features, *hidden, out_features]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in itertools.pairwise(widths))

    def forward(self, x: Tensor) -> Tensor:
        """Outputs of a batch of vectors."""
        for layer in self.layers[:-1]:
            x = F.relu(layer(x))
        out: Tensor = self.layers[-1](x)
        return out


MODEL = MLP
