"""What a row of the table must provide: the protocol of `ocd_core.evaluation.rows`.

A row answers for each test sample in its own way: the base network as it is, a control, a draw of Δ, an ensemble. It
says its title, whether a run can have it, and gives its outputs batch by batch. Three kinds:

- `Row`: any outputs.
- `MovedRow`: the base network with the selected layer moved by a Δ of each sample.
- `FittedRow`: fitted before on the training and the validation split (stage `train_controls`) and loaded for the
  evaluation; combine it with one of the others, `class Mine(MovedRow, FittedRow)`.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor, nn

from ocd_core.errors import UserError
from ocd_core.evaluation.context import Context, Fitting
from ocd_core.evaluation.shared_pass import SharedPass
from ocd_core.evaluation.space import DeltaSpace
from ocd_core.network.moves import Move
from ocd_core.samples import Tensors
from ocd_core.strict import StrictModel
from ocd_core.weights import load_strictly


class Row(ABC):
    """One row of the table.

    Set `Params` to the model of the row's own params, if it has any: they are the group `controls.<name>` of the
    params file, and `self.params` holds them. The group must be there if the row is fitted or evaluated.

    Args:
        name: the row's name in params and tables.
        context: what rows see of the run.
    """

    Params: ClassVar[type[StrictModel] | None] = None
    # values of them with which a few samples take no time: `ocd_core.testing.check_task` runs every row
    quick: ClassVar[Mapping[str, Any]] = {}
    # whether it may read the test split with its labels (a bound that cannot be reached); all others are kept from it
    sees_labels: ClassVar[bool] = False
    fitted: ClassVar[bool] = False  # whether it is a `FittedRow`

    params: StrictModel | None

    def __init__(self, name: str, context: Context) -> None:
        self.name, self.context = name, context
        self.params = context.params.controls.of_row(name)

    @property
    @abstractmethod
    def title(self) -> str:
        """Its name in tables."""

    def left_out(self) -> str | None:
        """Why this run cannot have the row, as a clause that goes on after "because"; None: it can."""
        return None

    @abstractmethod
    def outputs(self, shared: SharedPass) -> Tensors:
        """The row's answers for a batch, each (N, ...), on the device of the context's predictor.

        Batches come in the order of the split, each once. What other rows may need too, `shared` computes once.
        """

    def details(self) -> dict[str, Any] | None:
        """Plain values besides the metrics, asked for after the last batch."""
        return None


class MovedRow(Row):
    """The base network with its layer moved by a Δ of each sample."""

    @abstractmethod
    def move(self, shared: SharedPass) -> Move:
        """Δ (N, O, I), or the change Δ i_L of the layer's output (N, O)."""

    def outputs(self, shared: SharedPass) -> Tensors:
        """f(x; θ + Δ)."""
        return shared.outputs_with(self.move(shared))


@dataclass(frozen=True)
class Fit:
    """What a fit reports.

    metrics: plain numbers. curve: one entry per validation of a training. flops: the operations that it took.
    """

    metrics: dict[str, Any]
    curve: list[dict[str, float]] = field(default_factory=list)
    flops: dict[str, int] | None = None


@dataclass(frozen=True)
class Saved:
    """What a fitted row reads back: its `tensors` and its `config`, plain values.

    where: the folder, for errors. prefix: of the row's tensors there. space: the shared `DeltaSpace`, if any row used
    it.
    """

    tensors: dict[str, Tensor]
    config: dict[str, Any]
    where: Path
    prefix: str
    space: DeltaSpace | None

    def shared_space(self) -> DeltaSpace:
        """The space in which several rows answer.

        Raises:
            UserError: it was not saved.
        """
        if self.space is None:
            raise UserError(f"{self.where} holds no space of Δ; run the stage train_controls again ('dvc repro')")
        return self.space

    def load_into(self, module: nn.Module) -> None:
        """Give the module the saved tensors, which must be its own by name and shape; in eval mode, frozen.

        Raises:
            UserError: they are of another architecture.
        """
        load_strictly(module, self.tensors, self.where, f"{self.prefix}.")
        module.eval().requires_grad_(False)


class FittedRow(Row):
    """A row that is fitted before the evaluation, on the training and the validation split alone."""

    # under which its tensors stand in the file of all fitted rows; None: under the row's name
    prefix: ClassVar[str | None] = None
    fitted = True
    # the context's own, if the row answers in it: it is saved once for all rows
    space: DeltaSpace | None = None

    @abstractmethod
    def fit(self, fitting: Fitting) -> Fit:
        """Fit the row, and keep the result in this object, on the CPU."""

    def tensors(self) -> Mapping[str, Tensor]:
        """The fitted tensors by name; one whose name is empty stands under the prefix alone."""
        return {}

    def config(self) -> dict[str, Any]:
        """Plain values from which, with the tensors, `load` restores the row."""
        return {}

    @abstractmethod
    def load(self, saved: Saved) -> None:
        """Restore the fitted row, on the device of the context's predictor."""
