"""Moves of the same norm as OCD's in other directions: what a gain of drawn Δ might owe to their size alone.

Dims: N samples, K draws, O out_features, I in_features.
"""

from abc import abstractmethod

from torch import Tensor

from ocd_core.codes.representations.base import unit_rows
from ocd_core.evaluation.row import CombinedRow, DrawnRow
from ocd_core.evaluation.shared_pass import SharedPass
from ocd_core.samples import Tensors, stack


class SameNormRow(CombinedRow, DrawnRow):
    """An ensemble of networks; network k moves by another direction, as far as draw k of OCD moves this sample."""

    chosen_on = "train"
    costs_as = "ocd"  # which gives the norms

    @abstractmethod
    def directions(self, shared: SharedPass, k: int) -> Tensor:
        """Any matrices that are not zero, float32 (N, O, I); only their directions count."""

    def delta(self, shared: SharedPass, k: int) -> Tensor:
        """Δ of network k, float32 (N, O, I)."""
        norm_N = shared.drawn().delta(k).flatten(1).norm(dim=1)
        delta_NOI: Tensor = unit_rows(self.directions(shared, k)) * norm_N[:, None, None]
        return delta_NOI

    def distribution(self, shared: SharedPass) -> Tensors:
        """The networks' outputs."""
        return shared.once(
            (type(self), id(self)),
            lambda: stack([shared.outputs_with(self.delta(shared, k)) for k in range(self.draws)]),
        )
