"""`hypernetwork`: a network from I(x) to Δ in one step, trained end to end on the task's own loss.

It sees no overfitted Δ, except that they define the space of its answers, so it shows what the loss alone can teach.

Dims: N samples, d coordinates of Δ.
"""

from collections.abc import Callable, Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ocd_core.codes.condition import ConditionEncoder
from ocd_core.evaluation.context import Fitting
from ocd_core.evaluation.row import Fit, FittedRow, MovedRow, Saved
from ocd_core.evaluation.shared_pass import SharedPass
from ocd_core.evaluation.space import DeltaSpace
from ocd_core.network.cut import CutModel
from ocd_core.network.moves import Move, outputs_with_move, row_chunks, rows_within
from ocd_core.progress import Progress
from ocd_core.rng import derive_seed, torch_generator
from ocd_core.samples import Batch, Condition, Samples, rows_at_once
from ocd_core.tasks.base import Task
from ocd_core.tasks.draws_inputs import draws_inputs, step_batch
from ocd_core.training.loop import Row, Settings, optimise
from ocd_core.training.params import SmallNetworkParams

_MEMORY_MB = 512


class HypernetworkParams(SmallNetworkParams):
    """`controls.hypernetwork`."""


class Hypernetwork(nn.Module):
    """The encoders' sum and two hidden layers; answers in units of `scale`, and starts at the code 0."""

    scale: Tensor

    def __init__(self, encoder: ConditionEncoder, outputs: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.hidden = nn.Linear(encoder.dim, encoder.dim)
        self.last = nn.Linear(encoder.dim, outputs)
        self.register_buffer("scale", torch.ones(()))

    def forward(self, cond: Condition) -> Tensor:
        """Coordinates of Δ, float32 (N, d)."""
        h_NW = F.silu(self.hidden(F.silu(self.encoder(cond))))
        code_Nd: Tensor = self.last(h_NW) * self.scale
        return code_Nd


@dataclass(frozen=True)
class HypernetworkTraining:
    """network: the one with the best validation loss, including the untrained one. curve: one entry per validation.

    metrics: plain numbers.
    """

    network: Hypernetwork
    curve: list[Row]
    metrics: dict[str, float]


def train_hypernetwork(
    task: Task,
    model: CutModel,
    space: DeltaSpace,
    scale: float,
    train: Samples,
    val: Samples,
    params: HypernetworkParams,
    seed: int,
    progress: Progress | None = None,
    on_row: Callable[[Row], None] | None = None,
) -> HypernetworkTraining:
    """Train on the mean of `task.loss` under θ + Δ(I(x)), on the inputs that overfitting sees.

    Args:
        model: the base network cut at the layer; gradients pass through its tail. Training is on its device.
        space: the coordinates of the answers, on that device.
        scale: typical size of a coordinate (its rms in training).
    """
    with torch.random.fork_rng([]):  # initial weights from the seed, independent of torch's global generator
        torch.manual_seed(derive_seed(seed, "hypernetwork weights"))
        network = Hypernetwork(ConditionEncoder.from_condition(train.condition, params.width), space.size)
    nn.init.zeros_(network.last.weight)
    nn.init.zeros_(network.last.bias)
    network.scale.fill_(scale or 1.0)
    network.to(model.device)
    objective = _Objective(task, model, space, network, train, val, params, seed)
    start = objective.validate()["val_loss"]
    settings = Settings(params.updates, params.lr, params.validate_every, params.patience)
    found = optimise(network, objective, settings, seed, "hypernetwork", progress, on_row)
    best_loss, best_update = found.best_loss, found.best_update
    if start <= best_loss:  # the start is also a candidate of early stopping
        best_loss, best_update = start, 0
        nn.init.zeros_(network.last.weight)
        nn.init.zeros_(network.last.bias)
    metrics = {
        "val_loss": best_loss,
        "val_loss_before": start,
        "updates": float(found.updates),
        "best_update": float(best_update),
    }
    return HypernetworkTraining(network, found.curve, metrics)


class _Objective:
    """The task's loss on batches drawn by (seed, update), and on all of the validation set."""

    def __init__(
        self,
        task: Task,
        model: CutModel,
        space: DeltaSpace,
        network: Hypernetwork,
        train: Samples,
        val: Samples,
        params: HypernetworkParams,
        seed: int,
    ) -> None:
        self.task, self.model, self.space, self.network = task, model, space, network
        self.train, self.val, self.params, self.seed = train, val, params, seed
        example = self._batch(val, torch.zeros(1, dtype=torch.int64), 0)
        self.rows = rows_at_once(val.split, rows_within(model, example, _MEMORY_MB, matrices=2))

    def loss(self, update: int, part: int, parts: int) -> Tensor:
        generator = torch_generator(self.seed, "hypernetwork update", update)
        count = self.params.batch_size
        sample_id = torch.randint(len(self.train.split), (count,), generator=generator).tensor_split(parts)[part]
        return self._losses(self.train, sample_id, update).sum() / count

    def validate(self) -> Row:
        total, count = 0.0, len(self.val.split)
        with torch.no_grad():
            for rows in row_chunks(count, self.rows):
                total += float(self._losses(self.val, torch.arange(rows.start, rows.stop), 0).double().sum())
        return {"val_loss": total / count}

    def _batch(self, samples: Samples, sample_id: Tensor, step: int) -> Batch:
        batch = step_batch(self.task, samples.split, sample_id, torch.zeros_like(sample_id), step, self.seed)
        return batch.to(self.model.device)

    def _losses(self, samples: Samples, sample_id: Tensor, step: int) -> Tensor:
        batch = self._batch(samples, sample_id, step if draws_inputs(self.task) else 0)
        cut = self.model.prefix(batch.inputs)
        code_Nd = self.network(samples.condition.select(sample_id).to(self.model.device))
        output = outputs_with_move(self.model, cut, self.space.move(code_Nd, cut.layer_input_NI))
        return self.task.loss(output, batch.target)


class HypernetworkRow(MovedRow, FittedRow):
    """Δ from the hypernetwork."""

    Params = HypernetworkParams
    quick: ClassVar[Mapping[str, Any]] = {
        "width": 4,
        "updates": 1,
        "batch_size": 4,
        "lr": 1e-3,
        "validate_every": 1,
        "patience": 1,
    }
    params: HypernetworkParams
    title = "hypernetwork, end to end"
    space: DeltaSpace
    network: Hypernetwork

    def fit(self, fitting: Fitting) -> Fit:
        """Train on the run's device, in float32, with early stopping on the validation split."""
        base = fitting.predictor.model
        training = train_hypernetwork(
            fitting.task,
            CutModel(base.network, base.layer_name, "float32"),
            deepcopy(fitting.space).to(fitting.device),
            float(fitting.coordinates_Nd.square().mean().sqrt()),
            fitting.samples("train"),
            fitting.samples("val"),
            self.params,
            fitting.seed,
        )
        self.space, self.network = fitting.space, training.network.cpu()
        return Fit(training.metrics, training.curve)

    def tensors(self) -> Mapping[str, Tensor]:
        """The network's tensors."""
        return self.network.state_dict()

    def config(self) -> dict[str, Any]:
        """The sizes of its encoders."""
        return {"condition_sizes": list(self.network.encoder.sizes), "width": self.network.encoder.dim}

    def load(self, saved: Saved) -> None:
        """Load the network and the space of its answers."""
        self.space = saved.shared_space()
        encoder = ConditionEncoder(saved.config["condition_sizes"], saved.config["width"])
        self.network = Hypernetwork(encoder, self.space.size)
        saved.load_into(self.network)
        self.network.to(self.context.device)

    def move(self, shared: SharedPass) -> Move:
        """Δ at I(x)."""
        return self.space.move(self.network(shared.base.condition), shared.base.cut.layer_input_NI)


ROW = HypernetworkRow
