"""`bound`: each test sample overfitted with its own label, which no method has."""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ocd_core.errors import UserError
from ocd_core.evaluation.row import Row
from ocd_core.evaluation.shared_pass import SharedPass
from ocd_core.samples import SplitName, Tensors, map_tensors
from ocd_core.store import OverfitStore
from ocd_core.tasks.draws_inputs import seen_while_overfitting


@dataclass
class _Parts:
    """For each sample: the share that overfitting saw, and the metric on that part and on the rest."""

    shares: list[float] = field(default_factory=list)
    seen: list[float] = field(default_factory=list)
    unseen: list[float] = field(default_factory=list)


class Bound(Row):
    """The Δ of the test split's own overfit store.

    If overfitting sees only a part of a test sample (some of a view's rays), the first metric is also measured on that
    part and on the rest.
    """

    sees_labels = True
    chosen_on = "the labels of test"
    title = "overfitted on test (bound)"

    def store(self, name: SplitName) -> OverfitStore:
        """The store of a split.

        Raises:
            UserError: the number of samples differs from that of the split.
        """
        store, count = self.context.store(name), len(self.context.split(name))
        if store.rows_of_replica(0) != count:
            raise UserError(
                f"the overfit store has {store.rows_of_replica(0)} samples, the split {count}; run 'dvc repro'"
            )
        return store

    @cached_property
    def _parts(self) -> "_Parts":
        return _Parts()

    def outputs(self, shared: SharedPass) -> Tensors:
        """f(x; θ + Δ) under the sample's own Δ."""
        sample_id, store = shared.batch.sample_id, self.store(shared.split)
        delta_NOI = torch.from_numpy(store.deltas_of_samples(sample_id.numpy())).to(self.context.device)
        output = shared.outputs_with(delta_NOI)
        if shared.split == "test":
            task, split = self.context.task, self.context.split("test")
            steps = self.context.params.overfit.steps
            seen = seen_while_overfitting(task, split, sample_id, steps, self.context.seed)
            if seen is not None:
                self._add(seen, map_tensors(Tensor.cpu, output), split.batch(sample_id).target)
        return output

    def _add(self, seen: Tensor, output: Tensors, target: Tensors) -> None:
        assert isinstance(output, Tensor)
        assert isinstance(target, Tensor)
        per_sample = self.context.task.metrics[0].per_sample
        assert per_sample is not None
        self._parts.shares += seen.flatten(1).double().mean(1).tolist()
        for row, whole in enumerate(seen):
            for values, mask in ((self._parts.seen, whole), (self._parts.unseen, ~whole)):
                if mask.any():
                    values.append(float(per_sample(output[row][mask][None], target[row][mask][None])))

    def details(self) -> dict[str, Any] | None:
        """`share_seen`: of a sample. `seen`, `unseen`: `metric` on either part; `unseen` is None if all was seen."""
        if not self._parts.shares:
            return None
        metric = self.context.task.metrics[0]
        seen, unseen = (
            metric.finish(float(np.mean(values))) if values else None
            for values in (self._parts.seen, self._parts.unseen)
        )
        return {
            "metric": metric.name,
            "share_seen": float(np.mean(self._parts.shares)),
            "seen": seen,
            "unseen": unseen,
        }


ROW = Bound
