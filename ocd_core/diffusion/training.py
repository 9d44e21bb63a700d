"""Training of the conditional diffusion model: Alg. 1, lines 7-11, with all encoders trained jointly.

Dims: B samples of a batch, V validation rows.
"""

import hashlib
import json
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from ocd_core.codes.condition import ConditionEncoder
from ocd_core.codes.representations.base import Representation
from ocd_core.diffusion.joint import JointLoss, TaskSide
from ocd_core.diffusion.memory import refuse_impossible
from ocd_core.diffusion.model import DiffusionModel
from ocd_core.diffusion.params import DiffusionParams
from ocd_core.diffusion.schedules import add_noise, min_snr_weight, split_prediction, training_target
from ocd_core.errors import UserError
from ocd_core.progress import Progress
from ocd_core.rng import derive_seed, permutation, torch_generator
from ocd_core.samples import Condition
from ocd_core.stage_code import code_of
from ocd_core.training.flops import update_flops
from ocd_core.training.loop import ALONE, Checkpoints, Objective, Optimised, Row, Settings, optimise
from ocd_core.training.processes import Processes

Metrics = tuple[Tensor, Tensor]  # of the codes of training and validation rows, each (rows, d, d)
VALIDATION_ROWS = 1024  # at least: a small validation set is used several times, with different noise


@dataclass(frozen=True)
class DiffusionTraining:
    """model: with the averaged weights of the best validation. curve: one row per validation. metrics: plain numbers.

    One metric is val_loss_permuted, the validation loss with each sample's I(x) exchanged for another's, under the same
    timesteps and noise. If it is no higher than val_loss, the model does not use I(x). With `task_loss`, val_loss in
    metrics is the diffusion's own loss, but in the curve the sum of both. resumed: whether it began at a checkpoint.
    """

    model: DiffusionModel
    curve: list[Row]
    metrics: dict[str, float]
    resumed: bool


def train_diffusion(
    codes: Tensor,
    cond: Condition,
    val_codes: Tensor,
    val_cond: Condition,
    params: DiffusionParams,
    representation: Representation,
    seed: int,
    progress: Progress | None = None,
    on_row: Callable[[Row], None] | None = None,
    device: torch.device | str = "cpu",
    work_dir: Path | None = None,
    checkpoint_every: int = 1000,
    processes: Processes = ALONE,
    side: TaskSide | None = None,
    metrics: Metrics | None = None,
) -> DiffusionTraining:
    """Train ε_Ω, PE and the encoders on codes of training Δ (Alg. 1, lines 7-11).

    The validation set is used only for early stopping. Every batch, timestep and noise is a function of (seed, update),
    so a run that is interrupted and started again with the same `work_dir` ends with the same bits on a CPU; on a GPU
    only where all of torch's kernels that it uses are deterministic. Convolutions are (`local_device`).
    `params.batch_size` counts all processes together: several give the result of one, see ocd_core.training.loop.

    Args:
        codes: `representation.encode` of Δ with ρ > 0 (or of all Δ if it does not use the scale), (N, *shape).
        cond: I(x) of the same samples; val_codes, val_cond: of the validation split.
        progress: called after each update with the number of updates done.
        on_row: called with each row of the curve, starting from the first even if a run resumes: update, loss,
            val_loss, val_epsilon_mse, val_x0_mse, lr, gradient_norm.
        device: where this process trains.
        work_dir: where checkpoints go, every `checkpoint_every` updates; the caller removes it at the end.
        processes: the processes that train together (`join_processes`), each called with the same arguments except its
            device and the callbacks.
        side: for the task's loss, needed if `params.task_loss` is above 0.
        metrics: of the training and validation rows' errors, needed if `params.metric` is gauss_newton.

    Raises:
        UserError: there are no samples, codes are not finite, the loss is no longer a number, the memory does not
            suffice, a batch has fewer samples than parts, or the processes do not have the same inputs.
    """
    assert side is not None or not params.task_loss
    assert (metrics is None) == (params.metric == "euclidean")
    processes.check_batch(params.batch_size, params.accumulate, "diffusion")
    if params.task_loss:
        processes.check_batch(params.task_batch, params.accumulate, "diffusion", "task_batch")
    for name, some, of in (("training", codes, cond), ("validation", val_codes, val_cond)):
        assert some.shape[1:] == representation.shape
        assert len(some) == len(of)
        if len(some) == 0:
            raise UserError(f"there are no {name} samples with Δ ≠ 0 to train the diffusion on")
        if not torch.isfinite(some).all():
            raise UserError(f"the Δ of some {name} samples are not finite: lower overfit.lr and overfit again")
    together = params.batch_size + (params.task_batch if params.task_loss else 0)  # a part's two losses are one graph
    refuse_impossible(params.model_copy(update={"batch_size": together}), representation.shape, device, processes.count)
    key = ""
    if work_dir is not None or processes.count > 1:
        key = _fingerprint(params, seed, (codes, *cond.parts(), val_codes, *val_cond.parts(), *(metrics or ())))
        key += "" if side is None else side.fingerprint
    if not processes.agree(f"{key} {torch.__version__}"):
        raise UserError(
            "the processes have different params, code, stores or versions of torch; with representation pca they also "
            "need the same kind of processor"
        )
    model = fresh_model(cond, params, representation, seed).to(device)
    denoising = DenoisingLoss(model, codes, cond, val_codes, val_cond, seed, processes, metrics=metrics)
    objective: Objective = denoising
    task_flops = 0
    if side is not None and params.task_loss:
        moved = side.loss(model, seed, processes)
        objective = JointLoss(denoising, moved, params.task_loss, model.device)
        task_flops = update_flops(moved.loss, list(model.parameters()), params.accumulate * processes.count)
    checkpoints = None if work_dir is None else Checkpoints(work_dir / "checkpoint.pt", checkpoint_every, key)
    found = optimise(model, objective, _settings(params), seed, "diffusion", progress, on_row, checkpoints, processes)
    return DiffusionTraining(model, found.curve, _metrics(denoising, found, task_flops), found.resumed_at > 0)


def fresh_model(cond: Condition, params: DiffusionParams, representation: Representation, seed: int) -> DiffusionModel:
    """A model with initial weights from the seed, independent of torch's global generator."""
    with torch.random.fork_rng([]):
        torch.manual_seed(derive_seed(seed, "diffusion weights"))
        return DiffusionModel(ConditionEncoder.from_condition(cond, params.embedding), representation, params)


def _settings(params: DiffusionParams) -> Settings:
    return Settings(
        updates=params.updates,
        lr=params.lr,
        validate_every=params.validate_every,
        patience=params.patience,
        clip=math.inf if params.clip is None else params.clip,
        ema=params.ema,
        accumulate=params.accumulate,
        lr_schedule=params.lr_schedule,
        warmup=params.warmup,
        precision=params.precision,
    )


def _metrics(objective: "DenoisingLoss", found: Optimised, task_flops: int) -> dict[str, float]:
    """See `DiffusionTraining`; the model holds its best weights. task_flops: of the task's loss in an update."""
    model = objective.model
    best = next(r for r in found.curve if r["update"] == found.best_update)
    metrics = {
        "val_loss": best.get("val_delta_loss", found.best_loss),
        "val_epsilon_mse": best["val_epsilon_mse"],
        "val_x0_mse": best["val_x0_mse"],
        "best_update": float(found.best_update),
        "updates": float(found.updates),
        "parameters": float(sum(p.numel() for p in model.parameters())),
        "training_samples": float(len(objective.codes)),
        **model.representation.summary(),
    }
    if task_flops:
        metrics |= {"val_task_loss": best["val_task_loss"], "task_flops": float(task_flops * found.updates)}
    if len(objective.val_codes) > 1:
        with torch.no_grad():  # how much higher it is than val_loss measures how much I(x) helps
            metrics["val_loss_permuted"] = objective.with_other_conditions().validate()["val_loss"]
    return metrics


def other_rows(count: int, seed: int) -> Tensor:
    """A random other row for each of `count` ≥ 2 rows, each used once; int64 (count,)."""
    order = permutation(count, seed, "other rows")
    other = torch.empty_like(order)
    other[order] = order.roll(1)
    return other


class _Noisy(NamedTuple):
    """A batch at its timesteps: Δ's codes, t, ε, sqrt(ᾱ_t), sqrt(1 - ᾱ_t) and Ω_t."""

    x0: Tensor
    t: Tensor
    epsilon: Tensor
    signal: Tensor
    noise: Tensor
    omega_t: Tensor


class DenoisingLoss:
    """Eq. 7 on batches drawn by (seed, update), and on a validation set with fixed timesteps and noise.

    first: the first timestep that is drawn; T is the last. metrics: see `train_diffusion`; None: errors of all
    coordinates count alike.
    """

    def __init__(
        self,
        model: DiffusionModel,
        codes: Tensor,
        cond: Condition,
        val_codes: Tensor,
        val_cond: Condition,
        seed: int,
        processes: Processes = ALONE,
        first: int = 1,
        metrics: Metrics | None = None,
    ) -> None:
        self.model, self.params, self.seed, self.processes = model, model.params, seed, processes
        self.first, self.metrics = first, metrics
        self.codes, self.cond, self.val_codes, self.val_cond = codes, cond, val_codes, val_cond
        bars = model.schedule.alphas_bar
        self.signal = bars.sqrt().float().to(model.device)
        self.noise = (1 - bars).sqrt().float().to(model.device)
        # the ratio is infinite at t = 0, which is never drawn
        self.weight = min_snr_weight(self.params.prediction, model.schedule.snr).float().to(model.device)
        self.drawn: tuple[int, tuple[Tensor, Tensor, Tensor]] | None = None
        steps = model.schedule.timesteps
        rows = len(val_codes) * math.ceil(VALIDATION_ROWS / len(val_codes))
        order_V = permutation(rows, seed, "validation timesteps")
        self.val_t = first + (order_V * (steps + 1 - first)) // rows  # each timestep equally often

    def with_other_conditions(self) -> "DenoisingLoss":
        """The same objective with each validation sample's I(x) exchanged for another's."""
        swapped = self.val_cond.select(other_rows(len(self.val_codes), self.seed))
        return DenoisingLoss(
            self.model,
            self.codes,
            self.cond,
            self.val_codes,
            swapped,
            self.seed,
            self.processes,
            self.first,
            self.metrics,
        )

    def draw(self, update: int) -> tuple[Tensor, Tensor, Tensor]:
        """(rows, t, ε) of one update's batch (Alg. 1, lines 2 and 7)."""
        if self.drawn is None or self.drawn[0] != update:
            generator = torch_generator(self.seed, "diffusion update", update)
            count = (self.params.batch_size,)
            rows = torch.randint(len(self.codes), count, generator=generator)
            t = torch.randint(self.first, self.model.schedule.timesteps + 1, count, generator=generator)
            epsilon = torch.randn((*count, *self.model.shape), generator=generator)
            self.drawn = update, (rows, t, epsilon)
        return self.drawn[1]

    def loss(self, update: int, part: int, parts: int) -> Tensor:
        """The part's share of the batch's mean loss; 0 if it has no rows, which it may where parts are tuning's."""
        rows, t, epsilon = (x.tensor_split(parts)[part] for x in self.draw(update))
        if not len(rows):
            return torch.zeros((), device=self.model.device)
        noisy = self.add_noise(self.codes[rows], t, epsilon)
        output = self.predict(noisy, self.cond.select(rows))
        return self.per_sample(noisy, output, self._metric(0, rows)).sum() / self.params.batch_size

    def _metric(self, of: int, rows: Tensor) -> Tensor | None:
        """The metrics (B, d, d) of some rows of train (0) or validation (1), if there are any."""
        return None if self.metrics is None else self.metrics[of][rows].to(self.model.device)

    def add_noise(self, x0: Tensor, t: Tensor, epsilon: Tensor) -> "_Noisy":
        """Ω_t of codes, all on the model's device."""
        device = self.model.device
        x0, t, epsilon = x0.to(device), t.to(device), epsilon.to(device)
        per_sample = (len(t), *[1] * len(self.model.shape))
        signal, noise = self.signal[t].view(per_sample), self.noise[t].view(per_sample)
        return _Noisy(x0, t, epsilon, signal, noise, add_noise(x0, epsilon, signal, noise))

    def predict(self, noisy: "_Noisy", cond: Condition) -> Tensor:
        """The denoiser's output."""
        return self.model.predict(noisy.omega_t, noisy.t, self.model.embed(cond.to(self.model.device)))

    def per_sample(self, noisy: "_Noisy", output: Tensor, metric_Bdd: Tensor | None = None) -> Tensor:
        """The loss of each sample, (B,); with a metric, squares of errors are eᵀ M e."""
        target = training_target(self.params.prediction, noisy.x0, noisy.epsilon, noisy.signal, noisy.noise)
        gap = (output - target).flatten(1)
        if metric_Bdd is not None:
            with torch.autocast(gap.device.type, enabled=False):  # bf16 has too few digits for the metric
                square_B = ((metric_Bdd @ gap[:, :, None])[:, :, 0] * gap).sum(1)
            loss_B: Tensor = square_B.clamp_min(0).sqrt() if self.params.loss == "norm" else square_B / gap.shape[1]
        elif self.params.loss == "norm":
            loss_B = torch.linalg.vector_norm(gap, dim=1)
        else:
            loss_B = (gap**2).mean(1)
        if self.params.loss == "min_snr":
            weight_B: Tensor = self.weight[noisy.t]
            loss_B = loss_B * weight_B
        return loss_B

    def validate(self) -> Row:
        """Means over the rows, which are divided among the processes; t and ε do not depend on their number."""
        totals = torch.zeros(3, dtype=torch.float64, device=self.model.device)
        for at, epsilon in self._held_out():
            rows = at % len(self.val_codes)
            noisy = self.add_noise(self.val_codes[rows], self.val_t[at], epsilon)
            output = self.predict(noisy, self.val_cond.select(rows))
            x0_hat, epsilon_hat = split_prediction(
                self.params.prediction, output, noisy.omega_t, noisy.signal, noisy.noise
            )
            errors = (
                self.per_sample(noisy, output, self._metric(1, rows)),
                _mean_square(epsilon_hat - noisy.epsilon),
                _mean_square(x0_hat - noisy.x0),
            )
            totals += torch.stack([e.double().sum() for e in errors])
        self.processes.add_up([totals])
        loss, epsilon_mse, x0_mse = (totals / len(self.val_t)).tolist()
        return {"val_loss": loss, "val_epsilon_mse": epsilon_mse, "val_x0_mse": x0_mse}

    def _held_out(self) -> Iterator[tuple[Tensor, Tensor]]:
        """The validation rows of this process, (rows, ε), in parts no larger than those of training.

        ε is drawn in blocks of `batch_size` rows, so that `accumulate` bounds memory here too and changes nothing.
        """
        accumulate, processes = self.params.accumulate, self.processes
        own = slice(processes.rank * accumulate, (processes.rank + 1) * accumulate)
        for start in range(0, len(self.val_t), self.params.batch_size):
            at = torch.arange(start, min(start + self.params.batch_size, len(self.val_t)))
            generator = torch_generator(self.seed, "validation noise", start)
            epsilon = torch.randn((len(at), *self.model.shape), generator=generator)
            parts = (x.tensor_split(accumulate * processes.count)[own] for x in (at, epsilon))
            yield from ((rows, noise) for rows, noise in zip(*parts, strict=True) if len(rows))


def _mean_square(x: Tensor) -> Tensor:
    return (x.flatten(1) ** 2).mean(1)


def _fingerprint(params: DiffusionParams, seed: int, tensors: tuple[Tensor, ...]) -> str:
    """What a checkpoint depends on: params, seed, code and all data."""
    values = params.model_dump(mode="json")
    digest = hashlib.sha256(json.dumps([values, seed, code_of(__name__, {"diffusion": values})]).encode())
    for x in tensors:
        digest.update(f"{x.dtype}{tuple(x.shape)}".encode())
        for block in torch.split(x, 4096):
            digest.update(block.contiguous().cpu().numpy().tobytes())
    return digest.hexdigest()
