"""The task's own loss beside the diffusion's, from the start of the training (`diffusion.task_loss`).

Δ is drawn in one step from Ω_T, as `tuning` with `through: last` does it. The scale network is trained later, so that
an answer that is a direction is brought to the mean ρ of the training rows, as in the row `ocd_no_scale`.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from ocd_core.diffusion.drawn_moves import DrawnMoves, answer_at
from ocd_core.diffusion.model import DiffusionModel
from ocd_core.network.cut import CutModel
from ocd_core.network.moved_loss import MovedLoss
from ocd_core.rng import derive_seed
from ocd_core.samples import Condition, Samples
from ocd_core.tasks.base import Task
from ocd_core.training.loop import Objective, Row
from ocd_core.training.processes import Processes


@dataclass(frozen=True)
class TaskSide:
    """What the task's loss is taken on.

    base: the base network cut at the layer, in float32, on the device of the training. train, val: with I(x) of each
    sample. mean_rho: of the training rows, the length of a Δ whose code has none. fingerprint: of all of it, for
    checkpoints.
    """

    task: Task
    base: CutModel
    train: Samples
    val: Samples
    mean_rho: float
    fingerprint: str

    def loss(self, model: DiffusionModel, seed: int, processes: Processes) -> MovedLoss:
        """The mean of `task.loss` under θ + Δ, with one Δ per sample, on batches of `task_batch` samples.

        seed: of the run.
        """

        def rho(cond: Condition) -> Tensor:
            return torch.full((len(cond),), self.mean_rho, device=model.device)

        own = derive_seed(seed, "task loss")
        directions = model.representation.uses_scale
        answer = answer_at(model.schedule.timesteps)
        moves = DrawnMoves(model, rho if directions else None, 1, answer, directions, own)
        params = model.params
        return MovedLoss(
            self.task, self.base, moves, self.train, self.val, params.task_batch, seed, "task loss", processes, own
        )


class JointLoss:
    """The diffusion's loss plus λ times the task's; the sum decides in early stopping.

    The task's loss is in float32, whatever `diffusion.precision` says, as it is in tuning.
    """

    def __init__(self, denoising: Objective, moved: Objective, weight: float, device: torch.device) -> None:
        self.denoising, self.moved, self.weight, self.device = denoising, moved, weight, device

    def loss(self, update: int, part: int, parts: int) -> Tensor:
        """The part's share of the two batches' losses."""
        own = self.denoising.loss(update, part, parts)
        with torch.autocast(self.device.type, enabled=False):
            return own + self.weight * self.moved.loss(update, part, parts)

    def validate(self) -> Row:
        """The diffusion's row with `val_delta_loss`, its own loss, `val_task_loss`, and their sum as `val_loss`."""
        row, task = self.denoising.validate(), self.moved.validate()["val_loss"]
        own = row["val_loss"]
        return {**row, "val_loss": own + self.weight * task, "val_delta_loss": own, "val_task_loss": task}
