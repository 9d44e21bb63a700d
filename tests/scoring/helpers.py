"""A small classification task in memory, and the plain loop that the vectorised losses must match."""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ocd_core.network.layers import find_layers
from ocd_core.samples import Batch
from ocd_core.strict import StrictModel
from ocd_core.tasks.base import Task


class ArraySplit:
    def __init__(self, x: Tensor, y: Tensor) -> None:
        self.x, self.y = x, y

    def __len__(self) -> int:
        return len(self.y)

    def batch(self, sample_id: Tensor) -> Batch:
        return Batch((self.x[sample_id],), self.y[sample_id], sample_id)


class ArrayTask(Task):
    """Cross-entropy for integer targets, else the mean squared error."""

    def __init__(self) -> None:
        super().__init__(StrictModel(), "mlp", {})

    def prepare(self, dest: Path):
        raise NotImplementedError

    def open(self, prepared: Path, split):
        raise NotImplementedError

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        if target.dtype == torch.int64:
            return F.cross_entropy(output, target, reduction="none")
        return (output - target).square().flatten(1).mean(1)

    @property
    def metrics(self):
        return []


@torch.no_grad()
def losses_by_loop(model: nn.Module, layer: str, x: Tensor, y: Tensor, scale: float, draws: int, seed: int) -> Tensor:
    """One sample: set perturbed weights, run the network, draw after draw; all in float64."""
    model = model.double().eval()
    weight = find_layers(model, layer)[0].weight
    assert isinstance(weight, Tensor)
    base = weight.clone()
    generator = torch.Generator().manual_seed(seed)
    losses = torch.empty(draws, dtype=torch.float64)
    for i in range(draws):
        weight.copy_(base + scale * torch.randn(base.shape, generator=generator, dtype=torch.float64))
        losses[i] = ArrayTask().loss(model(x[None].double()), y[None])[0]
    weight.copy_(base)
    return losses
