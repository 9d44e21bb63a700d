"""`hypernetwork_pretrained`: the network of `hypernetwork`, first trained on Δ and then end to end on the task's loss.

It is the twin of the tuned diffusion model without diffusion: it learns from the same two teachers in the same order.
"""

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from ocd_core.evaluation.context import Fitting
from ocd_core.evaluation.delta_networks import QUICK, Hypernetwork, Phase, Rates, TrainingParams
from ocd_core.evaluation.hypernetworks import HypernetworkRow
from ocd_core.strict import PositiveInt, StrictModel


class RegressionPhase(StrictModel):
    """`controls.hypernetwork_pretrained.regression`: the training on Δ."""

    updates: PositiveInt  # at most, with each learning rate
    lrs: Rates


class PretrainedParams(TrainingParams):
    """`controls.hypernetwork_pretrained`."""

    regression: RegressionPhase


class Pretrained(HypernetworkRow):
    """Δ from a network that learned from Δ and from the loss."""

    Params = PretrainedParams
    quick: ClassVar[Mapping[str, Any]] = {**QUICK, "regression": {"updates": 1, "lrs": [1e-3]}}
    params: PretrainedParams
    title = "hypernetwork, regressed on Δ, then end to end"

    def phases(self, fitting: Fitting, network: Hypernetwork) -> Iterator[Phase]:
        """Two trainings."""
        first = self.params.regression
        yield self.regress(fitting, network, first.updates, first.lrs)
        yield self.end_to_end(fitting, network)


ROW = Pretrained
