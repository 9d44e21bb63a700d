"""A regression in memory with one wide layer, and params of its overfitting."""

import torch
from torch import Tensor

from ocd_core.models.mlp import MLP
from ocd_core.network.cut import CutModel
from ocd_core.overfit.params import OverfitParams
from ocd_core.rng import torch_generator
from ocd_core.samples import Batch, Condition
from ocd_core.tasks.draws_inputs import DrawsInputs
from tests.scoring.helpers import ArrayTask

ROWS, WIDE = 150, 200


def params(**changes) -> OverfitParams:
    values = {
        "optimizer": "sgd",
        "lr": 0.05,
        "steps": 2,
        "until_converged": False,
        "tolerance": 0.01,
        "replicas": 1,
        "precision": "float64",
        "layout": "dense",
        "memory_mb": 8,
        "shard_mb": 1,
    }
    return OverfitParams.model_validate({**values, **changes})


class Rows:
    """A split of random vectors with two targets each."""

    def __init__(self, count: int = ROWS) -> None:
        g = torch_generator(0, "rows")
        self.x, self.y = torch.randn(count, 30, generator=g), torch.randn(count, 2, generator=g)

    def __len__(self) -> int:
        return len(self.x)

    def batch(self, sample_id: Tensor) -> Batch:
        return Batch((self.x[sample_id],), self.y[sample_id], sample_id)


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
