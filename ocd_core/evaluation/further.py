"""Training the base network further: what the rows `base_further`, `base_further_augmented`, `layer_further` share."""

from collections.abc import Mapping
from typing import Annotated

from pydantic import AfterValidator, Field
from torch import Tensor, nn

from ocd_core.errors import DivergedError
from ocd_core.evaluation.context import Fitting
from ocd_core.evaluation.row import Fit, FittedRow, Saved
from ocd_core.evaluation.shared_pass import SharedPass
from ocd_core.network.blocks import network_outputs
from ocd_core.network.training import BaseTraining, fit_base
from ocd_core.rng import derive_seed
from ocd_core.samples import Tensors
from ocd_core.strict import PositiveInt, Rate, StrictModel, distinct
from ocd_core.tasks.base import Task


class FurtherParams(StrictModel):
    """Epochs, early stopping and learning rates of a training that starts from the base."""

    epochs: PositiveInt | None  # at most, with each learning rate; null: all cost as much as OCD's training
    patience: PositiveInt | None  # epochs without a better validation loss before it stops; null: it does not stop
    lrs: Annotated[list[Rate], Field(min_length=1), AfterValidator(distinct)]  # the best on val is kept


class FurtherRow(FittedRow):
    """The whole network with new weights, in the precision of the tail."""

    params: FurtherParams
    network: nn.Module

    def left_out(self) -> str | None:
        """A network whose parameters are all frozen has nothing to train."""
        return self.context.all_frozen

    def fit(self, fitting: Fitting) -> Fit:
        """Train on the run's device, with the samples in orders that the base training did not use.

        What the `build_model` of the row's task freezes stays frozen.

        Raises:
            DivergedError: the loss is no longer a number with any learning rate.
        """
        task, params = self.task(fitting), self.params
        epoch_flops, affordable = fitting.affordable(task, len(params.lrs))
        epochs = affordable if params.epochs is None else params.epochs
        trained: dict[float, BaseTraining] = {}
        used = 0
        for number, lr in enumerate(params.lrs, start=1):
            try:
                trained[lr] = self._train(fitting, task, epochs, lr)
            except DivergedError as error:  # it counts as infinitely bad, unless there is no other
                used += epoch_flops * error.after
                if number == len(params.lrs) and not trained:
                    raise
            else:
                used += epoch_flops * int(trained[lr].metrics["epochs"])
        lr = min(trained, key=lambda each: trained[each].metrics["val_loss"])
        self.network = trained[lr].model
        several = len(params.lrs) > 1
        curve = [
            {**row, **({"tried_lr": rate} if several else {})} for rate, each in trained.items() for row in each.curve
        ]
        cost = {"allowed": epoch_flops * epochs * len(params.lrs), "total": used}
        return Fit({**trained[lr].metrics, "lr": lr}, curve, cost)

    def _train(self, fitting: Fitting, task: Task, epochs: int, lr: float) -> BaseTraining:
        patience = epochs if self.params.patience is None else self.params.patience
        return fit_base(
            task,
            fitting.split("train"),
            fitting.split("val"),
            fitting.params.base.shortened(epochs, patience=patience, lr=lr),
            derive_seed(fitting.seed, "base further"),
            start=fitting.predictor.model.network,
            device=fitting.device,
            lr_name=f"controls.{self.family}.lrs",
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
        return network_outputs(self.network, shared.inputs)
