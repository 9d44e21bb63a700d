"""`ocd_mean_network`: one network, with its layer moved by the mean of `evaluate.draws` drawn Δ."""

import torch

from ocd_core.evaluation.row import DrawnRow, MovedRow
from ocd_core.evaluation.shared_pass import SharedPass
from ocd_core.network.moves import Move
from ocd_core.samples import Tensors


class OcdMeanNetwork(MovedRow, DrawnRow):
    """The mean of the weights, not of the outputs."""

    costs_as = "ocd"

    @property
    def title(self) -> str:
        """The title says how many draws there are, and whether a gain was chosen."""
        return f"OCD, mean network of {self.draws}{self.context.gain_note}"

    def outputs(self, shared: SharedPass) -> Tensors:
        """f(x; θ + Δ); of one draw, the answer of that draw, which is computed once for all rows."""
        return shared.drawn().output(0) if self.draws == 1 else super().outputs(shared)

    def move(self, shared: SharedPass) -> Move:
        """The mean of the draws' moves."""
        drawn, draws = shared.drawn(), self.draws
        total = torch.zeros(())
        for k in range(draws):
            total = total + drawn.move(k) / draws
        return total


ROW = OcdMeanNetwork
