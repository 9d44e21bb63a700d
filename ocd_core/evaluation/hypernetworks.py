"""Networks from I(x) to Δ in one step: what the rows `hypernetwork`, `regression` and `hypernetwork_pretrained` share.

They have the same architecture and differ in what they learn from: the task's loss alone, the overfitted Δ alone, or
first Δ and then the loss.

Dims: N samples, M rows of a store, B samples of a batch, d coordinates of Δ.
"""

from collections.abc import Iterator, Mapping
from copy import deepcopy
from typing import Any, ClassVar

from torch import Tensor

from ocd_core.codes.condition import ConditionEncoder
from ocd_core.evaluation.context import Fitting
from ocd_core.evaluation.delta_networks import (
    DivergedPhaseError,
    Hypernetwork,
    HypernetworkMoves,
    Phase,
    Rates,
    RegressionLoss,
    TrainingParams,
    run_phase,
)
from ocd_core.evaluation.row import Fit, FittedRow, MovedRow, Saved
from ocd_core.evaluation.shared_pass import SharedPass
from ocd_core.evaluation.space import DeltaSpace
from ocd_core.network.moved_loss import MovedLoss
from ocd_core.network.moves import Move
from ocd_core.training.loop import Row


class HypernetworkRow(MovedRow, FittedRow):
    """Δ from such a network; a row's file says how it is trained."""

    params: TrainingParams
    space: DeltaSpace
    network: Hypernetwork
    chosen_on: ClassVar[str] = "train and val"

    def phases(self, fitting: Fitting, network: Hypernetwork) -> Iterator[Phase]:
        """Train one network, one phase after the other; the last one's validation loss chooses the width."""
        raise NotImplementedError

    def end_to_end(self, fitting: Fitting, network: Hypernetwork) -> Phase:
        """On the mean of `task.loss` under θ + Δ(I(x)), on the inputs that overfitting sees."""
        params = self.params
        moves = HypernetworkMoves(network, deepcopy(fitting.space).to(fitting.device))
        objective = MovedLoss(
            fitting.task,
            fitting.tail,
            moves,
            fitting.samples("train"),
            fitting.samples("val"),
            params.batch_size,
            fitting.seed,
            "hypernetwork",
        )
        return run_phase(network, objective, params.settings(), params.lrs, fitting.seed)

    def regress(self, fitting: Fitting, network: Hypernetwork, updates: int, lrs: Rates) -> Phase:
        """On the Δ of the training store."""
        objective = RegressionLoss(
            network,
            fitting.train_condition,
            fitting.coordinates_Nd,
            fitting.store("val").condition(),
            fitting.val_coordinates_Md,
            self.params.batch_size,
            fitting.seed,
        )
        return run_phase(network, objective, self.params.settings(updates), lrs, fitting.seed)

    def fit(self, fitting: Fitting) -> Fit:
        """Train on the run's device, in float32, with early stopping on the validation split.

        A width that diverges with every learning rate counts as infinitely bad, unless there is no other.
        """
        scale = float(fitting.coordinates_Nd.square().mean().sqrt())
        cond = fitting.samples("train").condition
        best: tuple[float, int, Hypernetwork, list[Phase]] | None = None
        curve: list[Row] = []
        flops = 0
        for width in self.params.widths:
            network = Hypernetwork.fresh(cond, width, fitting.space.size, scale, fitting.seed).to(fitting.device)
            phases: list[Phase] = []
            try:
                for phase in self.phases(fitting, network):
                    phases.append(phase)
                    flops += phase.flops
            except DivergedPhaseError as error:
                flops += error.flops
                if best is None and width == self.params.widths[-1]:
                    raise
                continue
            several = len(phases) > 1
            for number, phase in enumerate(phases, start=1):
                note = {"width": float(width), **({"phase": float(number)} if several else {})}
                curve += [{**row, **note} for row in phase.tried.curve]
            loss = phases[-1].tried.best.best_loss
            if best is None or loss < best[0]:
                best = loss, width, network, phases
        assert best is not None
        _, width, network, phases = best
        self.space, self.network = fitting.space, network.cpu()
        metrics = {**phases[-1].tried.metrics(), "width": float(width)}
        for phase in phases[:-1]:
            metrics |= {f"regression_{name}": value for name, value in phase.tried.metrics().items()}
        return Fit(metrics, curve, {"allowed": flops, "total": flops})

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
