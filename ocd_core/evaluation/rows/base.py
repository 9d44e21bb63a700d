"""`base`: the unchanged base network, with which all other rows are compared."""

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
