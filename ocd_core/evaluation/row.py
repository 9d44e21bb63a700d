"""What a row of the table must provide: the protocol of `ocd_core.evaluation.rows`.

A row answers for each test sample in its own way: the unchanged base network, a control, a draw of Δ, an ensemble. It
has a title, says whether a run can have it, and gives its outputs batch by batch. There are four kinds:

- `Row`: any outputs.
- `CombinedRow`: several networks, whose outputs the task combines.
- `MovedRow`: the base network with the selected layer moved by one Δ per sample.
- `FittedRow`: fitted beforehand on the training and validation splits (stage `train_controls`) and loaded for the
  evaluation; combine it with one of the others, `class Mine(MovedRow, FittedRow)`.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor, nn

from ocd_core.config import Params as RunParams
from ocd_core.errors import UserError
from ocd_core.evaluation.context import Context, Fitting
from ocd_core.evaluation.shared_pass import SharedPass
from ocd_core.evaluation.space import DeltaSpace
from ocd_core.network.moves import Move
from ocd_core.samples import Tensors
from ocd_core.strict import StrictModel
from ocd_core.tasks.base import Task
from ocd_core.weights import load_strictly


class Row(ABC):
    """One row of the table.

    Set `Params` to the model of the row's own params, if it has any: they are the group `controls.<name>` of the
    params file, and `self.params` holds them. The group must be present if the row is fitted or evaluated.

    A row may have variants: each is a row of the table with the row's params and, if it is fitted, its fit. The name in
    the table is then `<name>_<variant>`.

    Args:
        name: the row's name in params.
        context: the parts of the run that rows can use.
        variant: one of `variants`, or empty while the row is fitted, which happens once for all variants.

    Attributes:
        name: in tables. family: in params, and in the file of all fitted rows.
    """

    Params: ClassVar[type[StrictModel] | None] = None
    # values of the params that are fast on a few samples: `ocd_core.testing.check_task` runs every row
    quick: ClassVar[Mapping[str, Any]] = {}
    # whether it may read the test split with its labels (for the bound); no other row can
    sees_labels: ClassVar[bool] = False
    fitted: ClassVar[bool] = False  # whether it is a `FittedRow`
    # the data that it was fitted or chosen on, for readers of the table
    chosen_on: ClassVar[str] = "train and val"
    # the training whose cost it has, by its name in `FittedRows.cost_flops`; None: its own
    costs_as: ClassVar[str | None] = None
    # whether the first call of `outputs` answers the whole split, which the row keeps
    whole_split: ClassVar[bool] = False

    params: StrictModel | None

    def __init__(self, name: str, context: Context, variant: str = "") -> None:
        self.name = f"{name}_{variant}" if variant else name
        self.family, self.context, self.variant = name, context, variant
        self.params = context.params.controls.of_row(name)

    @classmethod
    def variants(cls, params: RunParams) -> tuple[str, ...]:
        """The variants that the params ask for, in the order of the table; by default one without a name."""
        return ("",)

    @classmethod
    def training_of(cls, variant: str) -> str | None:
        """The training whose cost a variant has, see `costs_as`."""
        return cls.costs_as

    @property
    @abstractmethod
    def title(self) -> str:
        """The row's name in tables."""

    def left_out(self) -> str | None:
        """The reason why this run cannot have the row, as a clause that follows "because"; None if it can."""
        return None

    @abstractmethod
    def outputs(self, shared: SharedPass) -> Tensors:
        """The row's answers for a batch, each (N, ...), on the device of the context's predictor.

        Batches come in the order of the split, each once. `shared` computes once what several rows need.
        """

    def distribution(self, shared: SharedPass) -> Tensors | None:
        """The answers as a distribution: the outputs of K networks, each (K, N, ...); None if there is one answer.

        Metrics of distributions use them (`Metric.sees`); `outputs` is called before.
        """
        return None

    def details(self) -> dict[str, Any] | None:
        """Plain values besides the metrics; called after the last batch."""
        return None


class MovedRow(Row):
    """The base network with its layer moved by one Δ per sample."""

    @abstractmethod
    def move(self, shared: SharedPass) -> Move:
        """Δ (N, O, I), or the change Δ i_L of the layer's output (N, O)."""

    def outputs(self, shared: SharedPass) -> Tensors:
        """f(x; θ + Δ)."""
        return shared.outputs_with(self.move(shared))


class CombinedRow(Row):
    """Several networks, whose answer is `Task.combine` of their outputs."""

    @abstractmethod
    def distribution(self, shared: SharedPass) -> Tensors:
        """The networks' outputs, each (K, N, ...)."""

    def outputs(self, shared: SharedPass) -> Tensors:
        """The combination."""
        combined: Tensors = self.context.task.combine(self.distribution(shared))
        return combined


class DrawnRow(Row):
    """A row of several drawn networks, with one variant per number in `evaluate.draws` if it has more than one."""

    @classmethod
    def variants(cls, params: RunParams) -> tuple[str, ...]:
        """The numbers of networks."""
        draws = params.evaluate.draws
        return tuple(str(count) for count in draws) if len(draws) > 1 else ("",)

    @property
    def draws(self) -> int:
        """K, the number of drawn networks."""
        return int(self.variant) if self.variant else self.context.draws


@dataclass(frozen=True)
class Fit:
    """The report of a fit.

    metrics: plain numbers. curve: one entry per validation of a training. flops: the operations it took.
    flops_of_variants: {variant: the operations that it needs}, if variants need less than all of the fit.
    """

    metrics: dict[str, Any]
    curve: list[dict[str, float]] = field(default_factory=list)
    flops: dict[str, int] | None = None
    flops_of_variants: dict[str, dict[str, int]] = field(default_factory=dict)


@dataclass(frozen=True)
class Saved:
    """What a fitted row reads back: its `tensors` and its `config`, plain values.

    where: the folder, for errors. prefix: of the row's tensors in the file. space: the shared `DeltaSpace`, if any row
    used it.
    """

    tensors: dict[str, Tensor]
    config: dict[str, Any]
    where: Path
    prefix: str
    space: DeltaSpace | None

    def shared_space(self) -> DeltaSpace:
        """The space that several rows share.

        Raises:
            UserError: it was not saved.
        """
        if self.space is None:
            raise UserError(f"{self.where} holds no space of Δ; run the stage train_controls again ('dvc repro')")
        return self.space

    def load_into(self, module: nn.Module) -> None:
        """Load the saved tensors into the module, in eval mode and frozen; they must match its own by name and shape.

        Raises:
            UserError: the tensors belong to another architecture.
        """
        load_strictly(module, self.tensors, self.where, f"{self.prefix}.")
        module.eval().requires_grad_(False)


class FittedRow(Row):
    """A row that is fitted before the evaluation, only on the training and validation splits."""

    # the prefix of its tensors in the file of all fitted rows; None: the row's name
    prefix: ClassVar[str | None] = None
    fitted = True
    # the context's space, if the row answers in it; it is saved once for all rows
    space: DeltaSpace | None = None

    @property
    def networks(self) -> int:
        """How many networks like the base the `epochs` of its params train, one after the other or together."""
        return 1

    def task(self, context: Context) -> Task:
        """The task whose network the `epochs` of its params train; by default the run's."""
        return context.task

    @abstractmethod
    def fit(self, fitting: Fitting) -> Fit:
        """Fit the row and keep the result in this object, on the CPU."""

    def tensors(self) -> Mapping[str, Tensor]:
        """The fitted tensors by name; one with an empty name is saved under the prefix alone."""
        return {}

    def config(self) -> dict[str, Any]:
        """Plain values from which, with the tensors, `load` restores the row."""
        return {}

    @abstractmethod
    def load(self, saved: Saved) -> None:
        """Restore the fitted row, on the device of the context's predictor."""
