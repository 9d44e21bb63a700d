"""`equal_head`: a network with as many parameters as the diffusion model, on the same features I(x), without Δ.

It gives f_θ(x) + g(I(x)), where g is the encoders of I(x) with hidden layers, 0 at the start, and is trained on the
task's loss. It shows what the same capacity, the same features and the same cost give without weights that move. Its
width is that which comes nearest to the number of parameters of OCD's diffusion model.

Dims: N samples, B samples of a part of a batch, D numbers of an output, W width.
"""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import AfterValidator, Field
from torch import Tensor, nn

from ocd_core.codes.condition import ConditionEncoder
from ocd_core.evaluation.context import Fitting
from ocd_core.evaluation.delta_networks import RowsLoss
from ocd_core.evaluation.row import Fit, FittedRow, Saved
from ocd_core.evaluation.shared_pass import SharedPass
from ocd_core.rng import derive_seed
from ocd_core.samples import Condition, Tensors, map_tensors, only, select
from ocd_core.strict import Fraction, Positive, PositiveInt, StrictModel, distinct
from ocd_core.tasks.base import Task
from ocd_core.tasks.draws_inputs import draws_inputs
from ocd_core.training.flops import backward_flops
from ocd_core.training.loop import Settings
from ocd_core.training.tried import optimise_with_rates


class EqualHeadParams(StrictModel):
    """`controls.equal_head`."""

    depth: PositiveInt  # hidden layers after the encoders
    updates: PositiveInt | None  # at most, with each learning rate; null: all cost as much as OCD's training
    batch_size: PositiveInt
    lrs: Annotated[list[Positive], Field(min_length=1), AfterValidator(distinct)]  # the best on val is kept
    ema: Fraction
    validate_every: PositiveInt
    patience: PositiveInt  # validations without a better loss before it stops


class Head(nn.Module):
    """The encoders' sum and `depth` hidden layers; the last layer starts at 0.

    Args:
        encoder: of I(x), to W numbers. depth: hidden layers. outputs: D.
    """

    def __init__(self, encoder: ConditionEncoder, depth: int, outputs: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.hidden = nn.ModuleList(nn.Linear(encoder.dim, encoder.dim) for _ in range(depth))
        self.last = nn.Linear(encoder.dim, outputs)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)

    def forward(self, cond: Condition) -> Tensor:
        """What is added to the base's outputs, float32 (N, D)."""
        h_NW = self.encoder(cond)
        for layer in self.hidden:
            h_NW = layer(F.silu(h_NW))
        added_ND: Tensor = self.last(F.silu(h_NW))
        return added_ND


def parameters_of(sizes: tuple[int, ...], width: int, depth: int, outputs: int) -> int:
    """The number of a head's parameters."""
    encoders = sum(width * (size + 1) for size in sizes if size)
    return encoders + depth * width * (width + 1) + outputs * (width + 1)


def width_for(parameters: int, sizes: tuple[int, ...], depth: int, outputs: int) -> int:
    """The width whose head comes nearest to a number of parameters, at least 1."""
    low, high = 1, 2
    while parameters_of(sizes, high, depth, outputs) < parameters:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if parameters_of(sizes, middle, depth, outputs) < parameters else (low, middle)
    return min((low, high), key=lambda width: abs(parameters_of(sizes, width, depth, outputs) - parameters))


Answers = tuple[Condition, Tensor, Tensors]


class HeadLoss(RowsLoss[Answers]):
    """The mean of `task.loss`.

    Args:
        train, val: I(x), the base's outputs and the targets of every sample.
    """

    def __init__(self, task: Task, head: Head, train: Answers, val: Answers, batch_size: int, seed: int) -> None:
        super().__init__(train, val, batch_size, seed, "equal head update")
        self.task, self.head = task, head

    def errors(self, parts: Answers, rows: Tensor) -> Tensor:
        """The loss of each sample."""
        device = self.head.last.weight.device
        cond, output, target = parts
        found = added(self.head, cond.select(rows).to(device), output[rows].to(device))
        return self.task.loss(found, map_tensors(lambda x: x.to(device), select(target, rows)))


def added(head: Head, cond: Condition, output: Tensor) -> Tensor:
    """f_θ(x) + g(I(x)), (N, ...) in the dtype of the base's output."""
    shift: Tensor = head(cond)
    return output + shift.reshape(output.shape).to(output)


class EqualHead(FittedRow):
    """The base's outputs with the head's added."""

    Params = EqualHeadParams
    quick: ClassVar[Mapping[str, Any]] = {
        "depth": 1,
        "updates": 1,
        "batch_size": 4,
        "lrs": [1e-3],
        "ema": 0.0,
        "validate_every": 1,
        "patience": 1,
    }
    params: EqualHeadParams
    title = "head of equal capacity on I(x)"
    head: Head

    def left_out(self) -> str | None:
        """A head gives few numbers per sample, and all of a sample's training inputs are those that I(x) is of."""
        if draws_inputs(self.context.task):
            return "the task draws new inputs of a sample at each step"
        output = self.context.example_output
        if not isinstance(output, Tensor) or output.dim() > 2:
            return "an output of the base network is not a vector"
        return None

    def fit(self, fitting: Fitting) -> Fit:
        """Train on the run's device, in float32, with early stopping on val; the base itself is a candidate."""
        train, val = (self._answers(fitting, name) for name in ("train", "val"))
        sizes = tuple(part.flatten(1).shape[1] for part in train[0].parts())
        outputs, ocd = fitting.example_output, fitting.predictor.diffusion
        numbers = int(only(outputs).numel())
        capacity = sum(p.numel() for p in ocd.parameters())
        width = width_for(capacity, sizes, self.params.depth, numbers)
        with torch.random.fork_rng([]):
            torch.manual_seed(derive_seed(fitting.seed, "equal head weights"))
            head = Head(ConditionEncoder.from_condition(train[0], width), self.params.depth, numbers)
        objective = HeadLoss(fitting.task, head.to(fitting.device), train, val, self.params.batch_size, fitting.seed)
        one_update = backward_flops(lambda: objective.loss(0, 0, 1), list(head.parameters()))
        updates = self.params.updates or max(fitting.budget_flops // (one_update * len(self.params.lrs)), 1)
        settings = Settings(
            updates, self.params.lrs[0], self.params.validate_every, self.params.patience, ema=self.params.ema
        )
        tried = optimise_with_rates(head, objective, settings, self.params.lrs, fitting.seed, "equal head")
        self.head = head.cpu()
        own = sum(p.numel() for p in head.parameters())
        sized = {"width": float(width), "parameters": float(own), "parameters_of_ocd": float(capacity)}
        cost = {"allowed": one_update * updates * len(self.params.lrs), "total": one_update * tried.updates}
        return Fit({**tried.metrics(), **sized}, tried.curve, cost)

    def _answers(self, fitting: Fitting, name: Literal["train", "val"]) -> Answers:
        output, target = fitting.base_answers(name)
        return fitting.samples(name).condition, only(output), target

    def tensors(self) -> Mapping[str, Tensor]:
        """The head's tensors."""
        return self.head.state_dict()

    def config(self) -> dict[str, Any]:
        """The sizes of its encoders and layers."""
        encoder = self.head.encoder
        return {"condition_sizes": list(encoder.sizes), "width": encoder.dim, "depth": len(self.head.hidden),
                "outputs": self.head.last.out_features}  # fmt: skip

    def load(self, saved: Saved) -> None:
        """Load the head."""
        config = saved.config
        encoder = ConditionEncoder(config["condition_sizes"], config["width"])
        self.head = Head(encoder, config["depth"], config["outputs"])
        saved.load_into(self.head)
        self.head.to(self.context.device)

    def outputs(self, shared: SharedPass) -> Tensors:
        """f_θ(x) + g(I(x))."""
        return added(self.head, shared.base.condition, only(shared.base.output))


ROW = EqualHead
