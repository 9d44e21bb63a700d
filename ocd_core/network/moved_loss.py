"""The task's loss under θ + Δ, where a network in training gives Δ from I(x).

The tuned diffusion model and the hypernetworks minimise it: gradients pass through the base network's tail into the
network that gives Δ. Several Δ of a sample are answered by an ensemble, of which the loss is taken.

Dims: N samples, B samples of a part of a batch, K draws.
"""

from collections.abc import Iterable
from typing import Protocol

import torch
from torch import Tensor

from ocd_core.network.cut import CutModel
from ocd_core.network.kept import kept_prefix
from ocd_core.network.moves import Move, outputs_with_move, row_chunks, rows_within
from ocd_core.rng import torch_generator
from ocd_core.samples import Batch, Condition, Samples, rows_at_once, stack
from ocd_core.tasks.base import Task
from ocd_core.tasks.draws_inputs import step_batch, update_batch
from ocd_core.training.loop import ALONE, Row
from ocd_core.training.processes import Processes

_MEMORY_MB = 512


class GivesMoves(Protocol):
    """What gives Δ, differentiable in its own parameters."""

    def __call__(
        self, cond: Condition, layer_input_NI: Tensor | None, counter: Tensor, update: int | None
    ) -> Iterable[Move]:
        """K moves of each of N samples.

        Args:
            cond: I(x). layer_input_NI: i_L, or None if the layer sees several positions. Both on the model's device.
            counter: int64 (N,), on the CPU; with `update`, it identifies a sample's random draws.
            update: the update for which the samples were drawn; None on the validation split.
        """
        ...


class MovedLoss:
    """The loss on batches drawn by (seed, update), and on all of the validation split; see `training.loop.Objective`.

    Args:
        model: the base network cut at the layer. Training is on its device.
        moves: gives the Δ.
        train, val: on the inputs that overfitting sees, all of a split or some. Their prefix runs only if I(x) has not
            all that the tail needs.
        batch_size: samples per update, of all processes together.
        seed: of the run. A domain that draws inputs gives the same ones for it here as in overfitting.
        what: what is trained, as the purpose of the batches' randomness.
        processes: they divide the validation split among themselves.
        batch_seed: of the batches' samples; None: `seed`.
    """

    def __init__(
        self,
        task: Task,
        model: CutModel,
        moves: GivesMoves,
        train: Samples,
        val: Samples,
        batch_size: int,
        seed: int,
        what: str,
        processes: Processes = ALONE,
        batch_seed: int | None = None,
    ) -> None:
        self.task, self.model, self.moves = task, model, moves
        self.train, self.val, self.batch_size = train, val, batch_size
        self.seed, self.what, self.processes = seed, what, processes
        self.batch_seed = seed if batch_seed is None else batch_seed
        self._kept = {id(part): kept_prefix(task, model, part) for part in (train, val)}
        example = self._batch(val, torch.zeros(1, dtype=torch.int64), None)
        self.rows = rows_at_once(val.split, rows_within(model, example, _MEMORY_MB, matrices=2))

    def loss(self, update: int, part: int, parts: int) -> Tensor:
        """The part's share of the batch's mean loss."""
        generator = torch_generator(self.batch_seed, f"{self.what} update", update)
        drawn = torch.randint(len(self.train), (self.batch_size,), generator=generator)
        place = torch.arange(self.batch_size)
        rows, counter = (x.tensor_split(parts)[part] for x in (drawn, place))
        return self.losses(self.train, rows, counter, update).sum() / self.batch_size

    def validate(self) -> Row:
        """The mean loss over the validation samples; draws depend on the sample alone."""
        count, device = len(self.val), self.model.device
        total = torch.zeros((), dtype=torch.float64, device=device)
        chunks = list(row_chunks(count, self.rows))
        with torch.no_grad():
            for rows in chunks[self.processes.rank :: self.processes.count]:
                total += self.val_losses(rows).double().sum()
        self.processes.add_up([total])
        return {"val_loss": float(total) / count}

    def val_losses(self, rows: slice) -> Tensor:
        """The loss of each of some validation samples."""
        places = torch.arange(rows.start, rows.stop)
        return self.losses(self.val, places, places, None)

    def losses(self, samples: Samples, rows: Tensor, counter: Tensor, update: int | None) -> Tensor:
        """The loss of each sample, (B,); for `counter` and `update` see `GivesMoves`."""
        batch = self._batch(samples, rows, update)
        kept = self._kept[id(samples)]
        cut = self.model.prefix(batch.inputs) if kept is None else kept.cut(rows)
        cond = samples.condition.select(rows).to(self.model.device)
        outputs = [
            outputs_with_move(self.model, cut, move) for move in self.moves(cond, cut.layer_input_NI, counter, update)
        ]
        output = outputs[0] if len(outputs) == 1 else self.task.combine(stack(outputs))
        return self.task.loss(output, batch.target)

    def _batch(self, samples: Samples, rows: Tensor, update: int | None) -> Batch:
        sample_id = samples.sample_id(rows)
        if update is None:
            batch = step_batch(self.task, samples.split, sample_id, torch.zeros_like(sample_id), 0, self.seed)
        else:
            batch = update_batch(self.task, samples.split, sample_id, update, self.seed)
        return batch.to(self.model.device)
