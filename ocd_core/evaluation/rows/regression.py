"""`regression`: the network of the row `hypernetwork`, trained on the squared error of Δ alone.

It shows what Δ teaches without diffusion and without the task's loss.
"""

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from ocd_core.evaluation.context import Fitting
from ocd_core.evaluation.delta_networks import QUICK, Hypernetwork, Phase, TrainingParams
from ocd_core.evaluation.hypernetworks import HypernetworkRow


class RegressionParams(TrainingParams):
    """`controls.regression`."""


class Regression(HypernetworkRow):
    """Δ from a network that learned from Δ alone."""

    Params = RegressionParams
    quick: ClassVar[Mapping[str, Any]] = QUICK
    title = "regression of Δ by a network"

    def phases(self, fitting: Fitting, network: Hypernetwork) -> Iterator[Phase]:
        """One training."""
        yield self.regress(fitting, network, self.params.updates, self.params.lrs)


ROW = Regression
