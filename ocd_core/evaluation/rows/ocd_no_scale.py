"""`ocd_no_scale`: one draw with the mean ρ of the training rows, in place of the scale network's (Eq. 8)."""

from functools import cached_property

import torch

from ocd_core.evaluation.row import MovedRow
from ocd_core.evaluation.shared_pass import SharedPass
from ocd_core.network.moves import Move


class OcdNoScale(MovedRow):
    """The direction of the first draw, with the same length for all samples."""

    costs_as = "ocd"

    @property
    def title(self) -> str:
        """The title says whether a gain was chosen."""
        return f"OCD without scale (mean ρ){self.context.gain_note}"

    def left_out(self) -> str | None:
        """The row needs a representation that loses the length of Δ."""
        space = self.context.predictor.diffusion.representation
        return None if space.uses_scale else f"the representation {space.name} has no scale of its own"

    @cached_property
    def mean_rho(self) -> float:
        """Mean ‖Δ‖ of the training rows."""
        return float(self.context.store("train").read("rho").mean())

    def move(self, shared: SharedPass) -> Move:
        """The first draw at this length."""
        return shared.drawn().move(0, torch.full((len(shared),), self.mean_rho, device=self.context.device))


ROW = OcdNoScale
