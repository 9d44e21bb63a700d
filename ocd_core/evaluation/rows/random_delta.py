"""`random_delta`: Δ of random training samples, brought to the norm of OCD's, as an ensemble."""

from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from ocd_core.evaluation.same_norm import SameNormRow
from ocd_core.evaluation.shared_pass import SharedPass
from ocd_core.rng import permutation, sample_uniform

_POOL_BYTES = 2**28  # of training Δ to choose from, a seeded subset if there are more


class RandomDelta(SameNormRow):
    """Which training sample it is depends only on the seed, the test sample and the draw."""

    @property
    def title(self) -> str:
        """The title says how many networks there are."""
        return f"Δ of random training samples, of equal norm, ensemble of {self.draws}"

    def left_out(self) -> str | None:
        """There must be a Δ with a direction."""
        return None if self.context.store("train").read("rho").any() else "every training Δ is 0"

    @cached_property
    def pool_MOI(self) -> Tensor:
        """The Δ to choose from, float32, on the CPU."""
        store = self.context.store("train")
        rows = np.flatnonzero(store.read("rho") > 0)
        count = max(1, _POOL_BYTES // (4 * store.schema.out_features * store.schema.in_features))
        chosen = permutation(len(rows), self.context.seed, "random delta")[:count].sort().values
        return torch.from_numpy(store.deltas(rows[chosen.numpy()]))

    def directions(self, shared: SharedPass, k: int) -> Tensor:
        """Their Δ, (N, O, I)."""
        draw_N = sample_uniform((), shared.batch.sample_id.tolist(), self.context.seed, "random delta", k)
        return self.pool_MOI[(draw_N * len(self.pool_MOI)).long()].to(self.context.device)


ROW = RandomDelta
