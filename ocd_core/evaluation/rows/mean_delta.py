"""`mean_delta`: the mean training Δ, the same for every sample."""

from collections.abc import Mapping

import torch
from torch import Tensor

from ocd_core.codes.encode import read_deltas
from ocd_core.evaluation.context import Fitting
from ocd_core.evaluation.row import Fit, FittedRow, MovedRow, Saved
from ocd_core.evaluation.shared_pass import SharedPass
from ocd_core.network.moves import Move
from ocd_core.store import OverfitStore


class MeanDelta(MovedRow, FittedRow):
    """The base network with one Δ for all samples."""

    chosen_on = "train"
    title = "mean Δ for all"
    delta_OI: Tensor

    def fit(self, fitting: Fitting) -> Fit:
        """The mean over all rows of the training store."""
        self.delta_OI = mean_of_deltas(fitting.store("train"))
        return Fit({"norm": float(self.delta_OI.norm())})

    def tensors(self) -> Mapping[str, Tensor]:
        """Δ."""
        return {"": self.delta_OI}

    def load(self, saved: Saved) -> None:
        """Δ, float32 (O, I)."""
        self.delta_OI = saved.tensors[""].to(self.context.device)

    def move(self, shared: SharedPass) -> Move:
        """The same Δ for each sample."""
        return self.delta_OI.expand(len(shared), -1, -1)


def mean_of_deltas(store: OverfitStore) -> Tensor:
    """The mean Δ of a store's rows, summed in float64; float32 (O, I)."""
    total_OI = torch.zeros(store.schema.out_features, store.schema.in_features, dtype=torch.float64)
    for _, delta_NOI, _ in read_deltas(store):
        total_OI += delta_NOI.sum(0, dtype=torch.float64)
    return (total_OI / len(store)).float()


ROW = MeanDelta
