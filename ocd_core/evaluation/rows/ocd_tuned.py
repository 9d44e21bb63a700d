"""`ocd_tuned`: one draw of the diffusion model that was trained further on the task's loss."""

from ocd_core.evaluation.row import Row
from ocd_core.evaluation.shared_pass import SharedPass
from ocd_core.samples import Tensors


class OcdTuned(Row):
    """The base network moved by the first draw; its noise is that of the row `ocd`."""

    costs_as = "ocd_tuned"
    title = "OCD tuned on the task's loss (one draw)"

    def left_out(self) -> str | None:
        """The model must have been tuned."""
        return self.context.untuned

    def outputs(self, shared: SharedPass) -> Tensors:
        """f(x; θ + Δ)."""
        return shared.drawn(self.context.tuned).output(0)


ROW = OcdTuned
