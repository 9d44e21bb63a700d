"""`bound_all_layers`: each test sample overfitted with its own label in all layers, not only in the selected one."""

from collections.abc import Iterator
from functools import cached_property, partial

import torch
from torch import Tensor

from ocd_core.evaluation.row import Row
from ocd_core.evaluation.shared_pass import SharedPass
from ocd_core.network.cut import DTYPES
from ocd_core.network.moves import row_chunks
from ocd_core.network.per_sample import PerSampleNetwork, Weights
from ocd_core.overfit.params import OverfitParams
from ocd_core.overfit.whole import overfit_all_layers, samples_within
from ocd_core.samples import Batch, SplitName, Tensors, concatenate
from ocd_core.tasks.draws_inputs import parts_of_step, step_batch


class BoundAllLayers(Row):
    """The base network with all parameters overfitted as the selected layer is in the store of the test split.

    The params are those of the group `overfit`, and each step sees what the store's steps see (its first replica).
    """

    sees_labels = True
    chosen_on = "the labels of test"
    title = "overfitted on test, all layers (bound)"

    def left_out(self) -> str | None:
        """A network whose parameters are all frozen has nothing to move."""
        return self.context.all_frozen

    @cached_property
    def _names(self) -> list[str]:
        return [name for name, p in self.context.as_built.named_parameters() if p.requires_grad]

    @cached_property
    def _overfit(self) -> OverfitParams:
        return self.context.params.overfit.of_split("test")  # each sample once, like val

    @cached_property
    def _moving(self) -> PerSampleNetwork:
        """The base network in the precision of overfitting."""
        return PerSampleNetwork(self.context.predictor.model.network, self._names, DTYPES[self._overfit.precision])

    @cached_property
    def _answering(self) -> PerSampleNetwork:
        """The base network in the precision of the evaluation."""
        return PerSampleNetwork(self.context.predictor.model.network, self._names, self.context.predictor.model.dtype)

    @cached_property
    def _at_once(self) -> int:
        first = torch.zeros(1, dtype=torch.int64)
        return min(samples_within(self._moving, part, self._overfit) for part, _ in self._parts("test", first, 0))

    def outputs(self, shared: SharedPass) -> Tensors:
        """f(x; θ_s) with the sample's own θ_s."""
        found: list[Tensors] = []
        for rows in row_chunks(len(shared), self._at_once):
            sample_id = shared.batch.sample_id[rows]
            steps = partial(self._parts, shared.split, sample_id)
            result = overfit_all_layers(self._moving, steps, len(sample_id), self.context.task.loss, self._overfit)
            found += self._answers(result.weights, shared.on_device.select(rows))
        return concatenate(found)

    def _answers(self, weights: Weights, batch: Batch) -> Iterator[Tensors]:
        """f(x; θ_s) of a few samples at a time: a step may see a part of a sample, but an answer is for all of it."""
        size = samples_within(self._answering, batch.select(slice(0, 1)), self._overfit)
        for rows in row_chunks(len(batch), size):
            own = {name: weight[rows] for name, weight in weights.items()}
            yield self._answering.outputs(own, batch.select(rows).inputs)

    def _parts(self, split: SplitName, sample_id: Tensor, step: int) -> Iterator[tuple[Batch, float]]:
        """What a step sees, on the networks' device."""
        context = self.context
        replica = torch.zeros_like(sample_id)
        batch = step_batch(context.task, context.split(split), sample_id, replica, step, context.seed)
        for part, share in parts_of_step(context.task, batch):
            yield part.to(context.device), share


ROW = BoundAllLayers
