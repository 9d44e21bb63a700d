"""`deep_ensemble`: the base and networks trained like it from other fresh weights (Lakshminarayanan et al., 2017).

It shows what the same compute gives without OCD: unless its params say otherwise, the other networks may take as many
epochs together as cost the same as OCD's training.
"""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import Field
from torch import Tensor, nn

from ocd_core.evaluation.context import Fitting
from ocd_core.evaluation.row import Fit, FittedRow, Saved
from ocd_core.evaluation.shared_pass import SharedPass
from ocd_core.network.training import fit_base
from ocd_core.rng import derive_seed
from ocd_core.samples import Tensors, map_tensors, stack
from ocd_core.strict import PositiveInt, StrictModel


class DeepEnsembleParams(StrictModel):
    """`controls.deep_ensemble`."""

    members: Annotated[int, Field(ge=2)]  # the base network is one of them
    # of each, at most; null: as many as let all cost the same as OCD's training, and at most base.epochs
    epochs: PositiveInt | None


class DeepEnsemble(FittedRow):
    """The combined outputs of the members, in the precision of the tail."""

    Params = DeepEnsembleParams
    quick: ClassVar[Mapping[str, Any]] = {"members": 2, "epochs": 1}
    params: DeepEnsembleParams
    others: nn.ModuleList

    @property
    def title(self) -> str:
        """The title says how many members there are."""
        return f"deep ensemble of {self.params.members}"

    def left_out(self) -> str | None:
        """Members must differ."""
        return self.context.all_frozen

    def fit(self, fitting: Fitting) -> Fit:
        """Train each member as the base was trained, with early stopping, on the run's device."""
        count = self.params.members - 1
        epoch_flops, affordable = fitting.affordable(fitting.task, count)
        base = fitting.params.base
        epochs = min(affordable, base.epochs) if self.params.epochs is None else self.params.epochs
        chosen = base.model_copy(update={"checkpoint": None, "epochs": epochs})
        trained = [
            fit_base(
                fitting.task,
                fitting.split("train"),
                fitting.split("val"),
                chosen,
                derive_seed(fitting.seed, "deep ensemble", i),
                device=fitting.device,
            )
            for i in range(count)
        ]
        self.others = nn.ModuleList(training.model for training in trained)
        metrics = {f"member_{i}": dict(training.metrics) for i, training in enumerate(trained)}
        used = epoch_flops * sum(int(training.metrics["epochs"]) for training in trained)
        return Fit(metrics, [], {"allowed": epoch_flops * epochs * count, "total": used})

    def tensors(self) -> Mapping[str, Tensor]:
        """All weights of the other members."""
        return self.others.state_dict()

    def load(self, saved: Saved) -> None:
        """Load into networks that the task builds."""
        self.others = nn.ModuleList(self.context.task.build_model() for _ in range(self.params.members - 1))
        saved.load_into(self.others)
        self.others.to(self.context.device, self.context.predictor.model.dtype)

    def outputs(self, shared: SharedPass) -> Tensors:
        """`Task.combine` of the members' outputs."""
        combined: Tensors = self.context.task.combine(self.distribution(shared))
        return combined

    def distribution(self, shared: SharedPass) -> Tensors:
        """The members' outputs, each (K, N, ...)."""

        def compute() -> Tensors:
            dtype = self.context.predictor.model.dtype
            base = map_tensors(lambda x: x.to(dtype), shared.base.output)
            return stack([base, *(other(*shared.inputs) for other in self.others)])

        return shared.once((DeepEnsemble, id(self)), compute)


ROW = DeepEnsemble
