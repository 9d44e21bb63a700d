"""`neighbour`: the Δ, with its ρ, of the nearest training sample by Euclidean distance on raw x.

Dims: N queries, M training samples, D features.
"""

from functools import cached_property

import torch
from torch import Tensor

from ocd_core.evaluation.distances import squared_distances
from ocd_core.evaluation.row import MovedRow
from ocd_core.evaluation.shared_pass import SharedPass
from ocd_core.network.moves import Move
from ocd_core.samples import Batch, Split, rows_at_once, whole_split
from ocd_core.store import OverfitStore
from ocd_core.tasks.base import Task

_BLOCK = 4096  # training samples compared at a time


class Neighbours:
    """All training samples in memory as raw features (float32), and their Δ on disk.

    Args:
        train: the training split; store: its overfit store, where the first replica of each sample is used.
    """

    def __init__(self, task: Task, train: Split, store: OverfitStore) -> None:
        self._task, self._store = task, store
        chunks = torch.split(whole_split(train), rows_at_once(train, task.evaluation_batch))
        self.features_MD = torch.cat([task.neighbour_features(train.batch(rows)) for rows in chunks])

    def nearest(self, batch: Batch) -> Tensor:
        """The row of the nearest training sample, int64 (N,); the first if several are equally near."""
        query_ND = self._task.neighbour_features(batch)
        best_N = torch.full((len(batch),), torch.inf, dtype=torch.float64)
        found_N = torch.zeros(len(batch), dtype=torch.int64)
        for start in range(0, len(self.features_MD), _BLOCK):
            near_N, at_N = squared_distances(query_ND, self.features_MD[start : start + _BLOCK]).min(1)
            closer_N = near_N < best_N
            found_N[closer_N] = at_N[closer_N] + start
            best_N[closer_N] = near_N[closer_N]
        return found_N

    def deltas(self, batch: Batch) -> Tensor:
        """Δ of each sample's nearest training sample, float32 (N, O, I)."""
        return torch.from_numpy(self._store.deltas_of_samples(self.nearest(batch).numpy()))


class Neighbour(MovedRow):
    """Each sample with the Δ of its nearest training sample."""

    chosen_on = "train"
    title = "Δ of the nearest neighbour"

    @cached_property
    def _training(self) -> Neighbours:
        return Neighbours(self.context.task, self.context.split("train"), self.context.store("train"))

    def move(self, shared: SharedPass) -> Move:
        """The neighbours' Δ."""
        return self._training.deltas(shared.batch).to(self.context.device)


ROW = Neighbour
