"""A small classification task in memory, and the plain loop that the vectorised losses must match."""

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ocd_core.models.mlp import MLP
from ocd_core.network.cut import CutModel
from ocd_core.network.layers import find_layers
from ocd_core.rng import torch_generator
from ocd_core.samples import Batch, Condition
from ocd_core.strict import StrictModel
from ocd_core.tasks.base import Task
from ocd_core.tasks.draws_inputs import DrawsInputs


class ArraySplit:
    def __init__(self, x: Tensor, y: Tensor) -> None:
        self.x, self.y = x, y

    def __len__(self) -> int:
        return len(self.y)

    def batch(self, sample_id: Tensor) -> Batch:
        return Batch((self.x[sample_id],), self.y[sample_id], sample_id)


class Ragged:
    """Samples (T, D) of different lengths T; as in speech, a batch of several leaves out all but their first places."""

    one_by_one = True

    def __init__(self, *samples: Tensor) -> None:
        self.samples = samples

    def __len__(self) -> int:
        return len(self.samples)

    def batch(self, sample_id: Tensor) -> Batch:
        chosen = [self.samples[i] for i in sample_id.tolist()]
        shortest = min(map(len, chosen))
        return Batch((torch.stack([x[:shortest] for x in chosen]),), torch.ones(len(chosen), 2), sample_id)


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


ROWS, WIDE = 150, 200


class Rows(ArraySplit):
    """A split of random vectors with two targets each."""

    def __init__(self, count: int = ROWS) -> None:
        g = torch_generator(0, "rows")
        super().__init__(torch.randn(count, 30, generator=g), torch.randn(count, 2, generator=g))


class Noisy(DrawsInputs, ArrayTask):
    """Each replica of a sample sees its own noise at each step."""

    def overfit_batch(self, split, sample_id, replica, step, seed) -> Batch:
        batch = split.batch(sample_id)
        shift = 0.1 * replica.float()[:, None] + 0.01 * step
        return Batch((batch.inputs[0] + shift,), batch.target, sample_id)


class OtherCondition(ArrayTask):
    """Keeps i_L at half its size, so that Δ cannot be rebuilt from it."""

    def condition(self, batch, layer_input, activation, output, model=None) -> Condition:
        return Condition(layer_input / 2, activation, output)


def network() -> MLP:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return MLP(30, 2, [40, WIDE]).eval()


MODEL = CutModel(network(), "layers.1")  # 200 x 40: 32 kB a row


def condition(count: int, seed: int = 0) -> Condition:
    g = torch.Generator().manual_seed(seed)
    return Condition(*(torch.randn(count, d, generator=g) for d in (7, 5, 3)))


def unit_codes(count: int, entries: int, seed: int = 1) -> Tensor:
    """Codes of norm sqrt(entries)."""
    x = torch.randn(count, entries, generator=torch.Generator().manual_seed(seed))
    return x / x.norm(dim=1, keepdim=True) * entries**0.5
