"""`base`: the base network as it is, which all other rows are compared with."""

from ocd_core.evaluation.row import Row
from ocd_core.evaluation.shared_pass import SharedPass
from ocd_core.samples import Tensors


class Base(Row):
    """f_θ(x)."""

    title = "base network"

    def outputs(self, shared: SharedPass) -> Tensors:
        """The base network's own outputs."""
        return shared.base.output


ROW = Base
