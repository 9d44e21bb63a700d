"""Let a network that predicts Δ learn on from the task's loss, as the tuned diffusion model does.

Tuned draws can help where the Δ that a regression predicts do not (docs/results.md): what the network learned of Δ is
then a start, from which a few hundred updates on the loss under θ + Δ lead to moves that help.

Dims: M validation samples, C moments of the training.
"""

from contextlib import suppress
from typing import Any

import torch
from torch import Tensor

from ocd_core.errors import DivergedError, UserError
from ocd_core.evaluation.delta_networks import Hypernetwork, HypernetworkMoves, TrainingParams
from ocd_core.evaluation.space import DeltaSpace
from ocd_core.network.cut import CutModel
from ocd_core.network.moved_loss import MovedLoss
from ocd_core.network.moves import row_chunks
from ocd_core.samples import Samples
from ocd_core.tasks.base import Task
from ocd_core.tasks.draws_inputs import draws_inputs
from ocd_core.training.flops import backward_flops
from ocd_core.training.loop import Row
from ocd_core.training.tried import optimise_with_rates

# how many updates is given (`layer.probe.updates`)
TUNING = TrainingParams(widths=[128], updates=1, batch_size=32, lrs=[1e-3], ema=0.95, validate_every=50, patience=300)
_LARGE = 8  # the batch of a domain that draws the inputs of each step: its samples, such as views, have many


class _Recorded(MovedLoss):
    """Keeps the loss of each validation sample at each validation."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.found: list[Tensor] = []

    def validate(self) -> Row:
        chunks = row_chunks(len(self.val), self.rows)
        losses_M = torch.cat([self.val_losses(rows).double().cpu() for rows in chunks])
        if losses_M.isfinite().all():
            self.found.append(losses_M)
        return {"val_loss": float(losses_M.mean())}


def tuned_losses(
    network: Hypernetwork,
    space: DeltaSpace,
    task: Task,
    model: CutModel,
    train: Samples,
    val: Samples,
    updates: int,
    seed: int,
) -> tuple[Tensor, int]:
    """The loss of each validation sample at the start and after every 50 of `updates` updates, float64 (C, M).

    And the operations of the training, at most.

    The network is trained in place, on all of `train`; nothing is chosen on `val`. If the training diverges, what came
    before counts.

    Raises:
        UserError: at each validation, the loss of some sample is not finite.
    """
    moves = HypernetworkMoves(network, space)
    batch = _LARGE if draws_inputs(task) else TUNING.batch_size
    objective = _Recorded(task, model, moves, train, val, batch, seed, "tuned probe")
    with suppress(DivergedError):
        optimise_with_rates(network, objective, TUNING.settings(updates), TUNING.lrs, seed, "hypernetwork")
    flops = backward_flops(lambda: objective.loss(0, 0, 1), list(network.parameters())) * updates
    if not objective.found:
        raise UserError(f"layer {model.layer_name!r}: a validation loss is never finite in float32 under a predicted Δ")
    return torch.stack(objective.found), flops
