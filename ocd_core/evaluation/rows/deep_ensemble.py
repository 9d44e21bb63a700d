"""`deep_ensemble`: the base and networks trained like it from other fresh weights (Lakshminarayanan et al., 2017).

It shows what the same compute gives without OCD: unless its params say otherwise, the other networks may take as many
epochs together as cost the same as OCD's training. Ensembles of several sizes share their members.
"""

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import AfterValidator, Field
from torch import Tensor, nn

from ocd_core.config import Params as RunParams
from ocd_core.evaluation.context import Fitting
from ocd_core.evaluation.row import CombinedRow, Fit, FittedRow, Saved
from ocd_core.evaluation.shared_pass import SharedPass
from ocd_core.network.blocks import network_outputs
from ocd_core.network.training import fit_base
from ocd_core.rng import derive_seed
from ocd_core.samples import Tensors, map_tensors, stack
from ocd_core.strict import PositiveInt, StrictModel, distinct


class DeepEnsembleParams(StrictModel):
    """`controls.deep_ensemble`."""

    # the numbers of networks, the base is one of them; each number gives a row of its own
    members: Annotated[list[Annotated[int, Field(ge=2, le=1000)]], Field(min_length=1), AfterValidator(distinct)]
    # of each, at most; null: as many as let all cost the same as OCD's training, and at most base.epochs
    epochs: PositiveInt | None


class DeepEnsemble(CombinedRow, FittedRow):
    """The combined outputs of the members, in the precision of the tail."""

    Params = DeepEnsembleParams
    quick: ClassVar[Mapping[str, Any]] = {"members": [2, 3], "epochs": 1}
    params: DeepEnsembleParams
    others: nn.ModuleList

    @classmethod
    def variants(cls, params: RunParams) -> tuple[str, ...]:
        """The numbers of members, if there are several."""
        own = params.controls.of_row("deep_ensemble")
        assert isinstance(own, DeepEnsembleParams)
        return tuple(str(count) for count in own.members) if len(own.members) > 1 else ("",)

    @property
    def members(self) -> int:
        """How many networks answer."""
        return int(self.variant) if self.variant else max(self.params.members)

    @property
    def title(self) -> str:
        """The title says how many members there are."""
        return f"deep ensemble of {self.members}"

    @property
    def networks(self) -> int:
        """The base is trained already."""
        return max(self.params.members) - 1

    def left_out(self) -> str | None:
        """Members must differ."""
        return self.context.not_afresh or self.context.all_frozen

    def fit(self, fitting: Fitting) -> Fit:
        """Train each member as the base was trained, with early stopping, on the run's device."""
        count = self.networks
        epoch_flops, affordable = fitting.affordable(fitting.task, count)
        base = fitting.params.base
        epochs = min(affordable, base.epochs) if self.params.epochs is None else self.params.epochs
        chosen = base.shortened(epochs)
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
        used = [epoch_flops * int(training.metrics["epochs"]) for training in trained]

        def cost(members: int) -> dict[str, int]:
            return {"allowed": epoch_flops * epochs * (members - 1), "total": sum(used[: members - 1])}

        several = self.params.members if len(self.params.members) > 1 else []
        return Fit(metrics, [], cost(count + 1), {str(members): cost(members) for members in several})

    def tensors(self) -> Mapping[str, Tensor]:
        """All weights of the other members."""
        return self.others.state_dict()

    def load(self, saved: Saved) -> None:
        """Load into networks that the task builds, once for all variants."""

        def others() -> nn.ModuleList:
            found = nn.ModuleList(self.context.task.build_model() for _ in range(max(self.params.members) - 1))
            saved.load_into(found)
            return found.to(self.context.device, self.context.predictor.model.dtype)

        self.others = self.context.once((DeepEnsemble, self.family), others)

    def distribution(self, shared: SharedPass) -> Tensors:
        """The members' outputs, each (K, N, ...)."""
        return stack([self._output(shared, k) for k in range(self.members)])

    def _output(self, shared: SharedPass, k: int) -> Tensors:
        """The base's output, or that of the k-th other network, which runs once for all variants."""
        if k == 0:
            return map_tensors(lambda x: x.to(self.context.predictor.model.dtype), shared.base.output)
        other = self.others[k - 1]
        return shared.once((DeepEnsemble, id(other)), lambda: network_outputs(other, shared.inputs))


ROW = DeepEnsemble
