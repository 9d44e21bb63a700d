"""Networks from I(x) to Δ in one step, and what they are trained on: the overfitted Δ; the task's loss is elsewhere.

Rows and the probes of layers share them.

Dims: N samples, M rows of a store, B samples of a batch, d coordinates of Δ.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Generic, TypeVar

import torch
import torch.nn.functional as F
from pydantic import AfterValidator, Field
from torch import Tensor, nn

from ocd_core.codes.condition import ConditionEncoder
from ocd_core.errors import DivergedError
from ocd_core.evaluation.space import DeltaSpace
from ocd_core.network.moves import Move
from ocd_core.rng import derive_seed, torch_generator
from ocd_core.samples import Condition
from ocd_core.strict import Fraction, PositiveInt, Rate, StrictModel, Width, distinct
from ocd_core.training.flops import backward_flops
from ocd_core.training.loop import Objective, Row, Settings
from ocd_core.training.tried import Tried, optimise_with_rates

Rows = TypeVar("Rows", bound=tuple[Any, ...])
Rates = Annotated[list[Rate], Field(min_length=1), AfterValidator(distinct)]


class TrainingParams(StrictModel):
    """How such a network is trained: with every width and every learning rate; the best on val is kept."""

    widths: Annotated[list[Width], Field(min_length=1), AfterValidator(distinct)]
    updates: PositiveInt  # at most, with each learning rate
    batch_size: PositiveInt
    lrs: Rates
    ema: Fraction
    validate_every: PositiveInt
    patience: PositiveInt  # validations without a better loss before it stops

    def settings(self, updates: int | None = None) -> Settings:
        """Settings of the loop; its learning rate is set for each training."""
        updates = self.updates if updates is None else updates
        return Settings(updates, self.lrs[0], self.validate_every, self.patience, ema=self.ema)


class Hypernetwork(nn.Module):
    """The encoders' sum and two hidden layers; answers in units of `scale`, and starts at the code 0."""

    scale: Tensor

    def __init__(self, encoder: ConditionEncoder, outputs: int) -> None:
        super().__init__()
        self.encoder = encoder
        self.hidden = nn.Linear(encoder.dim, encoder.dim)
        self.last = nn.Linear(encoder.dim, outputs)
        self.register_buffer("scale", torch.ones(()))

    @classmethod
    def fresh(cls, cond: Condition, width: int, outputs: int, scale: float, seed: int) -> "Hypernetwork":
        """With weights from the seed, independent of torch's global generator.

        Args:
            cond: I(x) of training samples. scale: typical size of a coordinate (its rms in training).
        """
        with torch.random.fork_rng([]):
            torch.manual_seed(derive_seed(seed, "hypernetwork weights"))
            self = cls(ConditionEncoder.from_condition(cond, width), outputs)
        nn.init.zeros_(self.last.weight)
        nn.init.zeros_(self.last.bias)
        self.scale.fill_(scale or 1.0)
        return self

    def forward(self, cond: Condition) -> Tensor:
        """Coordinates of Δ, float32 (N, d)."""
        h_NW = F.silu(self.hidden(F.silu(self.encoder(cond))))
        code_Nd: Tensor = self.last(h_NW) * self.scale
        return code_Nd


class HypernetworkMoves:
    """One Δ per sample; see `ocd_core.network.moved_loss.GivesMoves`. space: on the network's device."""

    def __init__(self, network: Hypernetwork, space: DeltaSpace) -> None:
        self.network, self.space = network, space

    def __call__(
        self, cond: Condition, layer_input_NI: Tensor | None, counter: Tensor, update: int | None
    ) -> Iterable[Move]:
        """Δ at I(x)."""
        return [self.space.move(self.network(cond), layer_input_NI)]


class RowsLoss(ABC, Generic[Rows]):
    """The mean error of rows: on batches drawn by (seed, update), and on all of val; see `training.loop.Objective`.

    Args:
        train, val: what a row has, one entry per row in each part; the first is I(x).
        purpose: of the batches' randomness.
    """

    def __init__(self, train: Rows, val: Rows, batch_size: int, seed: int, purpose: str) -> None:
        self.train, self.val = train, val
        self.batch_size, self.seed, self.purpose = batch_size, seed, purpose

    @abstractmethod
    def errors(self, parts: Rows, rows: Tensor) -> Tensor:
        """The error of some rows of `train` or `val`, (B,), differentiable."""

    def loss(self, update: int, part: int, parts: int) -> Tensor:
        """The part's share of the batch's mean."""
        generator = torch_generator(self.seed, self.purpose, update)
        rows = torch.randint(len(self.train[0]), (self.batch_size,), generator=generator).tensor_split(parts)[part]
        return self.errors(self.train, rows).sum() / self.batch_size

    @torch.no_grad()
    def validate(self) -> Row:
        """The mean over all rows of `val`."""
        count = len(self.val[0])
        chunks = torch.split(torch.arange(count), 4096)
        return {"val_loss": sum(float(self.errors(self.val, rows).double().sum()) for rows in chunks) / count}


class RegressionLoss(RowsLoss[tuple[Condition, Tensor]]):
    """The squared error of Δ's coordinates, in units of the network's scale, averaged over coordinates.

    Args:
        cond, code_Md: I(x) and coordinates of every row of the training store; val_cond, val_code_Md: of validation.
    """

    def __init__(
        self,
        network: Hypernetwork,
        cond: Condition,
        code_Md: Tensor,
        val_cond: Condition,
        val_code_Md: Tensor,
        batch_size: int,
        seed: int,
    ) -> None:
        super().__init__((cond, code_Md), (val_cond, val_code_Md), batch_size, seed, "regression update")
        self.network = network

    def errors(self, parts: tuple[Condition, Tensor], rows: Tensor) -> Tensor:
        """The squared error of each row."""
        cond, code_Md = parts
        device = self.network.scale.device
        gap_Bd = (self.network(cond.select(rows).to(device)) - code_Md[rows].to(device)) / self.network.scale
        error_B: Tensor = gap_Bd.square().mean(1)
        return error_B


@dataclass(frozen=True)
class Phase:
    """One training with all its learning rates. flops: of all its updates."""

    tried: Tried
    flops: int


class DivergedPhaseError(DivergedError):
    """A training diverged with every learning rate; flops: of all its updates."""

    def __init__(self, error: DivergedError, flops: int) -> None:
        super().__init__(str(error), error.after)
        self.flops = flops


def run_phase(network: Hypernetwork, objective: Objective, settings: Settings, lrs: Rates, seed: int) -> Phase:
    """Train the network in place, from its present weights, which are a candidate of early stopping.

    Raises:
        DivergedPhaseError: with every learning rate.
    """
    one_update = backward_flops(lambda: objective.loss(0, 0, 1), list(network.parameters()))
    try:
        tried = optimise_with_rates(network, objective, settings, lrs, seed, "hypernetwork")
    except DivergedError as error:
        raise DivergedPhaseError(error, one_update * error.after) from error
    return Phase(tried, one_update * tried.updates)


QUICK: Mapping[str, Any] = {
    "widths": [4],
    "updates": 1,
    "batch_size": 4,
    "lrs": [1e-3],
    "ema": 0.0,
    "validate_every": 1,
    "patience": 1,
}
