"""SetFit's classifier with the layer that OCD moves: a square `Dense` after the sentence encoder, and a linear head."""

import torch
from torch import Tensor, nn


class SetFitHead(nn.Module):
    """`dense` (D -> D, no bias, no activation, the identity at the start) - `head` (D -> classes).

    Input: embeddings (N, D). Output: (N, classes) logits. As long as `dense` is the identity, the network is its head
    alone, SetFit's differentiable classifier (Tunstall et al., 2022).

    The head starts at 0, as logistic regression does. After one epoch its scores then follow the mean embeddings of the
    classes. With random weights, early stopping on a few validation texts often keeps what is nearly random.

    Args:
        features: D, and classes: their number. The prepared data gives both; the defaults only serve to name the layers
            before there is any.
    """

    def __init__(self, features: int = 384, classes: int = 2) -> None:
        super().__init__()
        if features < 1 or classes < 2:
            raise ValueError("features must be at least 1 and classes at least 2")
        self.dense = nn.Linear(features, features, bias=False)
        with torch.no_grad():
            nn.init.eye_(self.dense.weight)
        self.head = nn.Linear(features, classes)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, embedding: Tensor) -> Tensor:
        """Logits of a batch of embeddings."""
        logits: Tensor = self.head(self.dense(embedding))
        return logits


MODEL = SetFitHead
