"""The training loop that the diffusion model, the scale network and hypernetworks share.

Adam, clipping, gradient accumulation, learning-rate schedule, bf16 autocast, an exponential moving average of the
weights (what is validated and kept), early stopping at a plateau of the validation loss, and checkpoints from which
a run resumes bit for bit on a CPU (on a GPU, if its kernels are deterministic): all randomness is a function of (seed,
update), so nothing else needs to be restored.

Several processes (ocd_core.training.processes) take the same steps on the sum of their gradients. A batch is cut into
accumulate × processes parts, and each process computes `accumulate` of them. So the result equals that of one process
except for the order in which float32 numbers are added. Dropout is a function of (seed, update, part): with dropout, P
processes with `accumulate` A take the steps of one process with A·P, not those of one with A, whose masks differ.
"""

import contextlib
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from ocd_core.errors import DivergedError, UserError
from ocd_core.progress import Progress
from ocd_core.rng import derive_seed
from ocd_core.training.checkpoints import read_checkpoint, write_checkpoint
from ocd_core.training.processes import Processes
from ocd_core.training.rates import learning_rate

Row = dict[str, float]
ALONE = Processes()


class Objective(Protocol):
    """What is minimised."""

    def loss(self, update: int, part: int, parts: int) -> Tensor:
        """The share of part `part` of `parts` in the loss of the batch; the shares add up to it. Scalar."""
        ...

    def validate(self) -> Row:
        """Losses on held-out samples with the module's present weights; `val_loss` decides.

        Every process calls it, so they may share the work; the row of the main process counts.
        """
        ...


@dataclass(frozen=True)
class Settings:
    """How to minimise the objective; see `DiffusionParams` for the meaning of each."""

    updates: int
    lr: float
    validate_every: int
    patience: int
    clip: float = math.inf
    ema: float = 0.0
    accumulate: int = 1
    lr_schedule: Literal["constant", "cosine"] = "constant"
    warmup: int = 0
    precision: Literal["float32", "bf16"] = "float32"
    keep_start: bool = False  # the weights before the first update are a candidate of early stopping


@dataclass(frozen=True)
class Checkpoints:
    """Where and how often to save, and what identifies the run.

    A checkpoint with another fingerprint belongs to another run and is not used. A checkpoint is written every `every`
    updates, and when `seconds` have passed since the last one, for slow updates.
    """

    path: Path
    every: int
    fingerprint: str
    seconds: float = 300.0


@dataclass
class _State:
    """Everything about a run that is not a function of (seed, update)."""

    update: int = 0
    bad: int = 0  # validations since the best one
    best_update: int = 0
    best_loss: float = math.inf
    loss_sum: float = 0.0  # since the last validation
    loss_count: int = 0
    curve: list[Row] = field(default_factory=list)


@dataclass(frozen=True)
class Optimised:
    """curve: one row per validation; with `keep_start`, the row of the initial weights comes first.

    best_update: 0 for the initial weights. resumed_at: the update of the checkpoint that it resumed from, or 0.
    """

    curve: list[Row]
    updates: int
    best_update: int
    best_loss: float
    resumed_at: int


def _rate(settings: Settings, update: int) -> float:
    return learning_rate(settings.lr, update, settings.updates, settings.lr_schedule, settings.warmup)


def ema_decay(decay: float, update: int) -> float:
    """The decay at update 0, 1, ...: shorter at first, so that the average forgets the initial weights."""
    return min(decay, (1 + update) / (10 + update))


def optimise(
    module: nn.Module,
    objective: Objective,
    settings: Settings,
    seed: int,
    what: str,
    progress: Progress | None = None,
    on_row: Callable[[Row], None] | None = None,
    checkpoints: Checkpoints | None = None,
    processes: Processes = ALONE,
) -> Optimised:
    """Train `module` in place; at the end it holds the averaged weights of the best validation, in eval mode.

    Args:
        what: the thing that is trained, for messages and as the purpose of its dropout's randomness.
        on_row: called with each row of the curve: first those of the checkpoint that the run resumes from, then each
            new one as it comes.
        checkpoints: the main process writes them and all processes read them; the number of processes may change.
        processes: the processes that train together; each has its own `module`, with the same weights.

    Raises:
        DivergedError: the loss is no longer a number.
        UserError: the processes read different checkpoints.
    """
    run = _Run(module, objective, settings, seed, what, processes)
    state = run.state
    resumed_at = run.resume(checkpoints)
    if settings.keep_start and resumed_at == 0:
        state.curve.append(run.validate_start())
    if on_row is not None:
        for row in state.curve:
            on_row(row)
    saved = time.monotonic()
    module.train()
    while state.update < settings.updates and state.bad < settings.patience:
        gradient_norm = run.step()
        if state.update % settings.validate_every == 0 or state.update == settings.updates:
            row = run.validate(gradient_norm)
            if on_row is not None:
                on_row(row)
        if progress is not None:
            early = state.bad >= settings.patience and state.update < settings.updates
            progress(state.update, f"{'stopped early, ' * early}best val loss {state.best_loss:.4g}")
        if checkpoints is not None and processes.is_main:
            late = time.monotonic() - saved >= checkpoints.seconds
            if late or state.update % checkpoints.every == 0 or state.update == settings.updates:
                run.save(checkpoints)
                saved = time.monotonic()
    run.finish()
    return Optimised(state.curve, state.update, state.best_update, state.best_loss, resumed_at)


class _Run:
    """One training: the weights, their average, the average of the best validation, Adam, and the state."""

    def __init__(
        self, module: nn.Module, objective: Objective, settings: Settings, seed: int, what: str, processes: Processes
    ) -> None:
        self.module, self.objective, self.settings = module, objective, settings
        self.seed, self.what, self.processes = seed, what, processes
        self.params = list(module.parameters())
        self.device = self.params[0].device
        # the fused kernel exists for both devices and is the only implementation without a Python loop over tensors
        self.adam = torch.optim.Adam(self.params, lr=settings.lr, fused=True)
        self.average = [p.detach().clone() for p in self.params]
        self.best = [p.clone() for p in self.average]
        self.start = [p.clone() for p in self.average] if settings.keep_start else []
        self.state = _State()

    def step(self) -> float:
        """One update of the weights and of their average; returns the gradient's norm before clipping."""
        settings, update = self.settings, self.state.update
        for group in self.adam.param_groups:
            group["lr"] = _rate(settings, update)
        loss = self._gradients(update)
        norm = nn.utils.clip_grad_norm_(self.params, settings.clip)
        if not math.isfinite(loss):
            raise DivergedError(
                f"the loss of the {self.what} became {loss} at update {update + 1}: lower its lr (now "
                f"{settings.lr:g}) or clip, and check that the inputs are finite",
                update + 1,
            )
        self.adam.step()
        with torch.no_grad():
            move_average = get_ema_multi_avg_fn(ema_decay(settings.ema, update))  # type: ignore[no-untyped-call]
            move_average(self.average, self.params, update)
        self.state.update += 1
        self.state.loss_sum += loss
        self.state.loss_count += 1
        return float(norm)

    def _gradients(self, update: int) -> float:
        """Compute the gradients of a batch's loss, each process its own parts; returns the loss."""
        self.adam.zero_grad(set_to_none=True)
        own, count = self.settings.accumulate, self.processes.count
        loss = 0.0
        for part in range(self.processes.rank * own, (self.processes.rank + 1) * own):
            with (
                _dropout_seed(self.device, self.seed, self.what, update, part),
                torch.autocast(self.device.type, torch.bfloat16, enabled=self.settings.precision == "bf16"),
            ):
                share = self.objective.loss(update, part, own * count)
            share.backward()  # type: ignore[no-untyped-call]
            loss += float(share.detach())
        return _add_up(self.params, loss, self.processes) if count > 1 else loss

    def validate(self, gradient_norm: float) -> Row:
        """Measure the averaged weights, record the row, and keep them if they are the best so far."""
        state = self.state
        with averaged(self.params, self.average):
            row = self._measure()
        self.module.train()
        if not math.isfinite(row["val_loss"]):
            raise DivergedError(
                f"the validation loss of the {self.what} became {row['val_loss']} at update {state.update}: lower its "
                "lr or clip, and check that the validation inputs are finite",
                state.update,
            )
        loss = state.loss_sum / state.loss_count
        state.loss_sum, state.loss_count = 0.0, 0
        rate = _rate(self.settings, state.update - 1)
        row = {"update": float(state.update), "loss": loss, **row, "lr": rate, "gradient_norm": gradient_norm}
        state.curve.append(row)
        if row["val_loss"] < state.best_loss:
            state.best_loss, state.best_update, state.bad = row["val_loss"], state.update, 0
            torch._foreach_copy_(self.best, self.average)
        else:
            state.bad += 1
        return row

    def validate_start(self) -> Row:
        """The row of the weights that the run starts from."""
        return {"update": 0.0, **self._measure()}

    def _measure(self) -> Row:
        self.module.eval()
        with torch.no_grad():
            return self.processes.of_main(self.objective.validate())  # one row for all, so that all stop together

    def finish(self) -> None:
        """Give the module its best weights."""
        state = self.state
        if self.settings.keep_start and state.curve[0]["val_loss"] <= state.best_loss:
            state.best_loss, state.best_update, self.best = state.curve[0]["val_loss"], 0, self.start
        with torch.no_grad():
            torch._foreach_copy_(list[Tensor](self.params), self.best)
        self.module.eval()

    def save(self, checkpoints: Checkpoints) -> None:
        """Write a checkpoint."""
        whole = {
            "fingerprint": checkpoints.fingerprint,
            "state": vars(self.state),
            "params": [p.detach() for p in self.params],
            "average": self.average,
            "best": self.best,
            "adam": self.adam.state_dict(),
        }
        write_checkpoint(checkpoints.path, whole)

    def resume(self, checkpoints: Checkpoints | None) -> int:
        """Load the checkpoint of this run, if there is one; returns its update, the same in all processes."""
        resumed_at = 0 if checkpoints is None else self._load(checkpoints)
        if not self.processes.agree(str(resumed_at)):
            assert checkpoints is not None
            raise UserError(f"the processes read different files as {checkpoints.path}: they need the same folder")
        return resumed_at

    def _load(self, checkpoints: Checkpoints) -> int:
        if not checkpoints.path.is_file():
            return 0
        whole = read_checkpoint(checkpoints.path, self.device)
        if whole["fingerprint"] != checkpoints.fingerprint:
            return 0
        with torch.no_grad():
            for own, name in ((self.params, "params"), (self.average, "average"), (self.best, "best")):
                for mine, theirs in zip(own, whole[name], strict=True):
                    mine.copy_(theirs)
        self.adam.load_state_dict(whole["adam"])
        vars(self.state).update(whole["state"])
        return self.state.update


def _add_up(params: list[nn.Parameter], loss: float, processes: Processes) -> float:
    """Give every process the sum of all gradients; returns the sum of the losses."""
    for p in params:
        if p.grad is None:
            p.grad = torch.zeros_like(p)
    losses = torch.tensor([loss], device=params[0].device)
    processes.add_up([*(p.grad for p in params if p.grad is not None), losses])
    return float(losses)


@contextlib.contextmanager
def averaged(params: list[nn.Parameter], average: list[Tensor]) -> Iterator[None]:
    """Inside, the parameters hold the averaged weights; only pointers are exchanged."""
    own = [p.data for p in params]
    for p, a in zip(params, average, strict=True):
        p.data = a
    try:
        yield
    finally:
        for p, o in zip(params, own, strict=True):
            p.data = o


@contextlib.contextmanager
def _dropout_seed(device: torch.device, seed: int, what: str, update: int, part: int) -> Iterator[None]:
    """Dropout draws from torch's global generator: give it the seed of this update, and restore its state afterwards.

    `torch.manual_seed` is not used: without a GPU it queues a call and a formatted stack at every update.
    """
    if device.type == "cuda":
        index = torch.cuda.current_device() if device.index is None else device.index
        generator = torch.cuda.default_generators[index]
    else:
        generator = torch.default_generator
    before = generator.get_state()
    generator.manual_seed(derive_seed(seed, "dropout", what, update, part))
    try:
        yield
    finally:
        generator.set_state(before)
