"""`ocd_ensemble`: the outputs of `evaluate.draws` drawn networks, combined as the task says."""

from ocd_core.evaluation.row import CombinedRow, DrawnRow
from ocd_core.evaluation.shared_pass import SharedPass
from ocd_core.samples import Tensors


class OcdEnsemble(CombinedRow, DrawnRow):
    """An ensemble of drawn networks."""

    costs_as = "ocd"

    @property
    def title(self) -> str:
        """The title says how many draws there are, and whether a gain was chosen."""
        return f"OCD, ensemble of {self.draws}{self.context.gain_note}"

    def distribution(self, shared: SharedPass) -> Tensors:
        """The draws' outputs."""
        return shared.drawn().outputs(self.draws)


ROW = OcdEnsemble
