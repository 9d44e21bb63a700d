"""`another_base`: another network for the same task, trained from fresh weights as the base is, without OCD.

It shows what a better network gives at the same training: for views, a field that also sees the viewing direction.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

from torch import Tensor, nn

from ocd_core.errors import UserError
from ocd_core.evaluation.context import Context, Fitting
from ocd_core.evaluation.row import Fit, FittedRow, Saved
from ocd_core.evaluation.shared_pass import SharedPass
from ocd_core.files import is_shortage
from ocd_core.network.blocks import network_outputs
from ocd_core.network.fits import check_fits
from ocd_core.network.params import ModelArgs
from ocd_core.network.training import fit_base, seeded_network
from ocd_core.rng import derive_seed
from ocd_core.samples import Tensors, as_tuple
from ocd_core.strict import PositiveInt, StrictModel
from ocd_core.tasks.base import Task

_NO_MODEL = "no such model"


class AnotherBaseParams(StrictModel):
    """`controls.another_base`. All else of its training is that of the group `base`."""

    model: str | None  # a name as in base.model.name; null: that of the base
    args: ModelArgs  # of the model; if it is null, they replace and complete base.model.args
    epochs: PositiveInt  # at most


class AnotherBase(FittedRow):
    """The other network's outputs, in the precision of the tail."""

    Params = AnotherBaseParams
    quick: ClassVar[Mapping[str, Any]] = {"model": None, "args": {}, "epochs": 1}
    params: AnotherBaseParams
    network: nn.Module

    @property
    def title(self) -> str:
        """The title says what differs from the base."""
        named = "" if self.params.model is None else f": {self.params.model}"
        args = ", ".join(f"{name} {value}" for name, value in self.params.args.items())
        return f"another network{named}{f' ({args})' if args else ''}"

    def left_out(self) -> str | None:
        """A network must be trained from fresh weights, and be the one that the params name."""
        if self.context.not_afresh is None and not _follows_params(self.context.task):
            return "the task does not take its network from base.model"
        return self.context.not_afresh

    def task(self, context: Context) -> Task:
        """The run's, with the other network."""
        return context.task.with_model(self.params.model, self.params.args)

    def fit(self, fitting: Fitting) -> Fit:
        """Train as the base is trained, with early stopping, on the run's device; the seed is another.

        Raises:
            UserError: there is no such network, or it does not take the task's inputs or give such outputs.
        """
        task, seed = self.task(fitting), derive_seed(fitting.seed, "another base")
        self._check(fitting, task)
        found = fit_base(
            task,
            fitting.split("train"),
            fitting.split("val"),
            fitting.params.base.shortened(self.params.epochs),
            seed,
            device=fitting.device,
        )
        self.network = found.model
        epoch_flops, _ = fitting.affordable(task)
        cost = {"allowed": epoch_flops * self.params.epochs, "total": epoch_flops * int(found.metrics["epochs"])}
        return Fit({**found.metrics, "parameters": sum(p.numel() for p in found.model.parameters())}, found.curve, cost)

    def _check(self, fitting: Fitting, task: Task) -> None:
        """Raises UserError unless the network answers the first samples in the shapes of the base."""
        try:
            network = seeded_network(task, 0)
        except Exception as error:
            if is_shortage(error):
                raise
            reason = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
            raise UserError(f"controls.another_base: {reason}") from error
        both = check_fits(task, network, fitting.split("train"), "controls.another_base")
        shapes, wanted = ([(1, *x.shape[1:]) for x in as_tuple(found)] for found in (both, fitting.example_output))
        if shapes != wanted:
            raise UserError(
                f"controls.another_base: the network answers one sample with shapes {shapes}, and the base with "
                f"{wanted}; correct its model or args"
            )

    def tensors(self) -> Mapping[str, Tensor]:
        """All weights."""
        return self.network.state_dict()

    def load(self, saved: Saved) -> None:
        """Load into a network that the params describe."""
        self.network = self.task(self.context).build_model()
        saved.load_into(self.network)
        self.network.to(self.context.device, self.context.predictor.model.dtype)

    def outputs(self, shared: SharedPass) -> Tensors:
        """Those of the other network."""
        return network_outputs(self.network, shared.inputs)


def _follows_params(task: Task) -> bool:
    """Whether the task's network is the one that `base.model` names: it cannot build one with an impossible name."""
    try:
        task.with_model(_NO_MODEL, {}).build_model()
    except Exception as error:  # whatever a task of the user's raises for it
        if is_shortage(error):
            raise
        return True
    return False


ROW = AnotherBase
