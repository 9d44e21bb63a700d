"""An extension of the Task protocol for domains that draw new inputs of a sample at each step of overfitting.

It is for samples that are too large for one step, such as a view of a scene, of which each step sees some rays.
"""

from abc import abstractmethod
from collections.abc import Iterable

import torch
from torch import Tensor

from ocd_core.samples import Batch, Split
from ocd_core.tasks.base import Task


class DrawsInputs(Task):
    """A domain whose overfitting steps see different inputs of a sample. I(x) and metrics are of whole samples."""

    @abstractmethod
    def overfit_batch(self, split: Split, sample_id: Tensor, replica: Tensor, step: int, seed: int) -> Batch:
        """The inputs of one step, for replica `replica` (int64, (N,)) of each sample; a function of the arguments."""

    def parts(self, batch: Batch) -> Iterable[tuple[Batch, float]]:
        """Cut an `overfit_batch` of samples too large for the processor's cache: (part, its share of the loss).

        It is for a loss that is a mean over independent elements of the sample (a view's rays).
        """
        return [(batch, 1.0)]

    def seen_while_overfitting(self, split: Split, sample_id: Tensor, steps: int, seed: int) -> Tensor | None:
        """Which parts of each whole sample the steps of its replica 0 see; None if the whole sample is seen.

        It is bool (N, ...) over the first axes of the target.
        """
        return None

    def scoring_batch(self, split: Split, sample_id: Tensor, seed: int) -> Batch:
        """The inputs on which the layers are scored; by default those of the first step of replica 0.

        Override this if that is too much for many draws.
        """
        return self.overfit_batch(split, sample_id, torch.zeros_like(sample_id), 0, seed)

    def update_batch(self, split: Split, sample_id: Tensor, update: int, seed: int) -> Batch:
        """The inputs of one update of a network that learns from the task's loss under θ + Δ.

        By default they are those of the step of replica 0 with the update's number. Override this if that is too much
        of a sample: an update averages over many samples.
        """
        return self.overfit_batch(split, sample_id, torch.zeros_like(sample_id), update, seed)


def update_batch(task: Task, split: Split, sample_id: Tensor, update: int, seed: int) -> Batch:
    """What an update of a network that learns from the loss under θ + Δ sees: its inputs, or the unchanged samples."""
    if isinstance(task, DrawsInputs):
        return task.update_batch(split, sample_id, update, seed)
    return split.batch(sample_id)


def draws_inputs(task: Task) -> bool:
    """Whether steps of overfitting see different inputs."""
    return isinstance(task, DrawsInputs)


def step_batch(task: Task, split: Split, sample_id: Tensor, replica: Tensor, step: int, seed: int) -> Batch:
    """What a step of overfitting sees: `overfit_batch`, or the unchanged samples."""
    if isinstance(task, DrawsInputs):
        return task.overfit_batch(split, sample_id, replica, step, seed)
    return split.batch(sample_id)


def scoring_batch(task: Task, split: Split, sample_id: Tensor, seed: int) -> Batch:
    """What the layers are scored on: the domain's `scoring_batch`, or the unchanged samples."""
    if isinstance(task, DrawsInputs):
        return task.scoring_batch(split, sample_id, seed)
    return split.batch(sample_id)


def parts_of_step(task: Task, batch: Batch) -> Iterable[tuple[Batch, float]]:
    """The parts of a `step_batch`, each with its share of the loss."""
    return task.parts(batch) if isinstance(task, DrawsInputs) else [(batch, 1.0)]


def seen_while_overfitting(task: Task, split: Split, sample_id: Tensor, steps: int, seed: int) -> Tensor | None:
    """Which parts of each sample overfitting sees, see `DrawsInputs.seen_while_overfitting`; None if all."""
    return task.seen_while_overfitting(split, sample_id, steps, seed) if isinstance(task, DrawsInputs) else None
