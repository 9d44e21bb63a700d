"""`base_further`: the base trained further, all layers, from its own weights with a new optimiser of the same kind.

It shows what the same compute gives without OCD: unless its params say otherwise, it may take as many epochs as cost
the same as OCD's training.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor, nn

from ocd_core.evaluation.context import Fitting
from ocd_core.evaluation.row import Fit, FittedRow, Saved
from ocd_core.evaluation.shared_pass import SharedPass
from ocd_core.network.params import BaseParams
from ocd_core.network.training import fit_base
from ocd_core.rng import derive_seed
from ocd_core.samples import Tensors
from ocd_core.strict import Positive, PositiveInt, StrictModel


class FurtherParams(StrictModel):
    """`controls.base_further`."""

    epochs: PositiveInt | None  # at most; null: as many as cost the same as OCD's training
    patience: PositiveInt | None  # epochs without a better validation loss before it stops; null: it does not stop
    lr: Positive


class BaseFurther(FittedRow):
    """The whole network with new weights, in the precision of the tail."""

    Params = FurtherParams
    quick: ClassVar[Mapping[str, Any]] = {"epochs": 1, "patience": None, "lr": 1e-4}
    params: FurtherParams
    title = "base trained further"
    prefix = "further"
    network: nn.Module

    def left_out(self) -> str | None:
        """A network whose parameters are all frozen has nothing to train."""
        return self.context.all_frozen

    def fit(self, fitting: Fitting) -> Fit:
        """Train on the run's device, with the samples in orders that the base training did not use."""
        epoch_flops, as_long_as_ocd = fitting.affordable(fitting.task)
        chosen = self._training(fitting.params.base, as_long_as_ocd)
        result = fit_base(
            fitting.task,
            fitting.split("train"),
            fitting.split("val"),
            chosen,
            derive_seed(fitting.seed, "base further"),
            start=fitting.predictor.model.network,
            device=fitting.device,
        )
        self.network = result.model
        used = epoch_flops * int(result.metrics["epochs"])
        return Fit(result.metrics, result.curve, {"allowed": epoch_flops * chosen.epochs, "total": used})

    def _training(self, base: BaseParams, as_long_as_ocd: int) -> BaseParams:
        epochs = as_long_as_ocd if self.params.epochs is None else self.params.epochs
        patience = epochs if self.params.patience is None else self.params.patience
        return base.model_copy(
            update={"checkpoint": None, "epochs": epochs, "patience": patience, "lr": self.params.lr}
        )

    def tensors(self) -> Mapping[str, Tensor]:
        """All weights."""
        return self.network.state_dict()

    def load(self, saved: Saved) -> None:
        """Load into a network that the task builds."""
        self.network = self.context.task.build_model()
        saved.load_into(self.network)
        self.network.to(self.context.device, self.context.predictor.model.dtype)

    def outputs(self, shared: SharedPass) -> Tensors:
        """The outputs of the network that was trained further."""
        output: Tensors = self.network(*shared.inputs)
        return output


ROW = BaseFurther
