"""`ocd`: one draw of Δ for each sample (Alg. 2)."""

from ocd_core.evaluation.row import Row
from ocd_core.evaluation.shared_pass import SharedPass
from ocd_core.samples import Tensors


class Ocd(Row):
    """The base network moved by the first draw."""

    costs_as = "ocd"

    @property
    def title(self) -> str:
        """The title says whether a gain was chosen."""
        return f"OCD (one draw){self.context.gain_note}"

    def outputs(self, shared: SharedPass) -> Tensors:
        """f(x; θ + Δ)."""
        return shared.drawn().output(0)


ROW = Ocd
