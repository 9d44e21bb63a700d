"""`ocd_tuned_ensemble`: the outputs of several draws of the tuned diffusion model, combined as the task says."""

from ocd_core.evaluation.row import CombinedRow, DrawnRow
from ocd_core.evaluation.shared_pass import SharedPass
from ocd_core.samples import Tensors


class OcdTunedEnsemble(CombinedRow, DrawnRow):
    """An ensemble of drawn networks."""

    costs_as = "ocd_tuned"

    @property
    def title(self) -> str:
        """The title says how many draws there are."""
        return f"OCD tuned on the task's loss, ensemble of {self.draws}"

    def left_out(self) -> str | None:
        """The model must have been tuned."""
        return self.context.untuned

    def distribution(self, shared: SharedPass) -> Tensors:
        """The draws' outputs."""
        return shared.drawn(self.context.tuned).outputs(self.draws)


ROW = OcdTunedEnsemble
