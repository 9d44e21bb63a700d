"""Tune a trained diffusion model: train it further on the task's own loss under θ + Δ, Δ being what it draws.

Gradients pass through the sampler and the base network's tail. A draw in one step from Ω_T is a hypernetwork with noise
as a further input; the diffusion model that it starts from has learned from Δ what the loss alone does not teach.

Dims: N samples, K draws.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ocd_core.diffusion.drawn_moves import Draw, DrawnMoves, Rho
from ocd_core.diffusion.memory import refuse_impossible
from ocd_core.diffusion.model import DiffusionModel
from ocd_core.diffusion.samplers.ddim import ddim
from ocd_core.diffusion.training import DenoisingLoss, Metrics
from ocd_core.diffusion.tuning_params import TuningParams
from ocd_core.errors import UserError
from ocd_core.network.cut import CutModel
from ocd_core.network.moved_loss import MovedLoss
from ocd_core.progress import Progress
from ocd_core.rng import derive_seed
from ocd_core.samples import Condition, Samples
from ocd_core.tasks.base import Task
from ocd_core.training.flops import update_flops
from ocd_core.training.loop import ALONE, Row, Settings
from ocd_core.training.processes import Processes
from ocd_core.training.tried import Resume, Tried, optimise_with_rates

Coded = tuple[Tensor, Condition]  # codes of Δ (M, *shape), and I(x) of the same M rows


@dataclass(frozen=True)
class Tuning:
    """The result of `tune`.

    curve: see `Tried`; with `delta_weight`, val_delta_loss is the diffusion's own loss. metrics: plain numbers.
    resumed: whether a training began at a checkpoint.
    """

    curve: list[Row]
    metrics: dict[str, float]
    resumed: bool


def ddim_draw(model: DiffusionModel, steps: int) -> Draw:
    """The draw by DDIM, without fresh noise."""
    return lambda denoise, noise: ddim(denoise, noise, model.schedule, steps)


class TuningLoss:
    """The task's loss plus λ times the diffusion's own; early stopping looks at the task's alone."""

    def __init__(self, moved: MovedLoss, denoising: DenoisingLoss | None, weight: float) -> None:
        self.moved, self.denoising, self.weight = moved, denoising, weight

    def loss(self, update: int, part: int, parts: int) -> Tensor:
        """The part's share of the batch's loss."""
        loss = self.moved.loss(update, part, parts)
        return loss if self.denoising is None else loss + self.weight * self.denoising.loss(update, part, parts)

    def validate(self) -> Row:
        """`val_loss` is the task's."""
        row = self.moved.validate()
        if self.denoising is not None:
            row["val_delta_loss"] = self.denoising.validate()["val_loss"]
        return row


def tune(
    task: Task,
    base: CutModel,
    model: DiffusionModel,
    rho: Rho | None,
    train: Samples,
    val: Samples,
    params: TuningParams,
    renormalise: bool,
    seed: int,
    deltas: tuple[Coded, Coded] | None = None,
    progress: Progress | None = None,
    on_row: Callable[[Row], None] | None = None,
    resume: Resume | None = None,
    processes: Processes = ALONE,
    metrics: Metrics | None = None,
    inputs_seed: int | None = None,
) -> Tuning:
    """Train a diffusion model on the mean of `task.loss` under θ + Δ, from its present weights, in place.

    Early stopping, the best learning rate and the average of the weights are chosen on the validation split, where the
    present weights are a candidate too: the result is never worse there. Everything random is a function of (seed,
    update), so that an interrupted run ends with the same bits (on a GPU: see `train_diffusion`).

    Args:
        base: the base network cut at the layer; on the model's device, in the precision of the training.
        rho: see `DrawnMoves`.
        train, val: the splits with I(x) of each sample.
        params: `updates` is at least 1.
        renormalise: see `SamplingParams`.
        deltas: of train and val, needed if `delta_weight` is above 0.
        progress: called with the number of updates done, out of `updates` times the number of learning rates.
        on_row: called with each row of the curve.
        processes: the processes that train together.
        metrics: of the errors of `deltas`, needed if the model's `metric` is gauss_newton; see `train_diffusion`.
        inputs_seed: of the inputs that a domain draws, the seed of overfitting; None: `seed`.

    Raises:
        UserError: the loss is no longer a number with any learning rate, the memory does not suffice, a batch has fewer
            samples than parts, or the processes do not have the same inputs.
    """
    processes.check_batch(params.batch_size, params.accumulate, "tuning")
    if not processes.agree(f"{'' if resume is None else resume.fingerprint} {torch.__version__}"):
        raise UserError("the processes have different params, code, artifacts or versions of torch")
    drawn = params.batch_size * params.draws * params.sampler_steps
    together = drawn + (model.params.batch_size if params.delta_weight else 0)  # a part's two losses are one graph
    sizes = {"batch_size": together, "accumulate": params.accumulate, "precision": "float32"}
    refuse_impossible(model.params.model_copy(update=sizes), model.shape, model.device, processes.count, "tuning")
    own = derive_seed(seed, "tuning")
    moves = DrawnMoves(model, rho, params.draws, ddim_draw(model, params.sampler_steps), renormalise, own)
    inputs = seed if inputs_seed is None else inputs_seed
    moved = MovedLoss(task, base, moves, train, val, params.batch_size, inputs, "tuning", processes, own)
    objective = TuningLoss(moved, _denoising(model, deltas, params, own, processes, metrics), params.delta_weight)
    settings = Settings(
        updates=params.updates,
        lr=params.lrs[0],
        validate_every=params.validate_every,
        patience=params.patience,
        clip=math.inf if params.clip is None else params.clip,
        ema=params.ema,
        accumulate=params.accumulate,
    )
    one_update = update_flops(objective.loss, list(model.parameters()), params.accumulate * processes.count)
    tried = optimise_with_rates(
        model, objective, settings, params.lrs, own, "tuning", progress, on_row, resume, processes
    )
    return Tuning(tried.curve, {**_metrics(tried), "flops": float(one_update * tried.updates)}, tried.resumed)


def _metrics(tried: Tried) -> dict[str, float]:
    """What was chosen, and the best validation loss with each learning rate that did not diverge."""
    by_rate = {f"val_loss_lr_{lr:g}": loss for lr, loss in tried.losses.items() if math.isfinite(loss)}
    return {**tried.metrics(), **by_rate}


def _denoising(
    model: DiffusionModel,
    deltas: tuple[Coded, Coded] | None,
    params: TuningParams,
    seed: int,
    processes: Processes,
    metrics: Metrics | None = None,
) -> DenoisingLoss | None:
    if not params.delta_weight:
        return None
    assert deltas is not None
    assert (metrics is not None) == (model.params.metric == "gauss_newton")
    first = 1 if params.delta_timesteps == "all" else math.ceil(model.schedule.timesteps / 2)
    (codes, cond), (val_codes, val_cond) = deltas
    return DenoisingLoss(model, codes, cond, val_codes, val_cond, seed, processes, first, metrics)
