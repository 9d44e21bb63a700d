"""`hypernetwork`: a network from I(x) to Δ in one step, trained end to end on the task's own loss.

It sees no overfitted Δ, except that they define the space of its answers, so it shows what the loss alone can teach.
"""

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from ocd_core.evaluation.context import Fitting
from ocd_core.evaluation.delta_networks import QUICK, Hypernetwork, Phase, TrainingParams
from ocd_core.evaluation.hypernetworks import HypernetworkRow


class HypernetworkParams(TrainingParams):
    """`controls.hypernetwork`."""


class EndToEnd(HypernetworkRow):
    """Δ from a network that learned from the loss alone."""

    Params = HypernetworkParams
    quick: ClassVar[Mapping[str, Any]] = QUICK
    title = "hypernetwork, end to end"

    def phases(self, fitting: Fitting, network: Hypernetwork) -> Iterator[Phase]:
        """One training."""
        yield self.end_to_end(fitting, network)


ROW = EndToEnd
