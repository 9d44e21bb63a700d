"""Train from the same start with several learning rates, and keep the weights of the one that is best on validation."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor, nn

from ocd_core.errors import DivergedError
from ocd_core.progress import Progress
from ocd_core.training.loop import ALONE, Checkpoints, Objective, Optimised, Row, Settings, optimise
from ocd_core.training.processes import Processes


@dataclass(frozen=True)
class Resume:
    """Where the checkpoints of all learning rates go, and what identifies the run; see `Checkpoints`."""

    folder: Path
    every: int
    fingerprint: str

    def at(self, number: int) -> Checkpoints:
        """The checkpoints of one learning rate."""
        return Checkpoints(self.folder / f"checkpoint-{number}.pt", self.every, self.fingerprint)


@dataclass(frozen=True)
class Tried:
    """The result of `optimise_with_rates`.

    curve: the rows of all trainings; `update` counts on from one to the next, `tried_lr` is the learning rate.
    lr: the best. best: its training. updates: of all trainings together. losses: {learning rate: best validation loss},
    infinite if the training diverged. resumed: whether one of them began at a checkpoint.
    """

    curve: list[Row]
    lr: float
    best: Optimised
    updates: int
    losses: dict[float, float]
    resumed: bool

    @property
    def start_loss(self) -> float:
        """The validation loss of the start."""
        return self.best.curve[0]["val_loss"]

    def metrics(self) -> dict[str, float]:
        """Plain numbers for a metrics file."""
        return {
            "val_loss": self.best.best_loss,
            "val_loss_before": self.start_loss,
            "best_update": float(self.best.best_update),
            "updates": float(self.updates),
            "lr": self.lr,
        }


def optimise_with_rates(
    module: nn.Module,
    objective: Objective,
    settings: Settings,
    lrs: Sequence[float],
    seed: int,
    what: str,
    progress: Progress | None = None,
    on_row: Callable[[Row], None] | None = None,
    resume: Resume | None = None,
    processes: Processes = ALONE,
) -> Tried:
    """`optimise` from the module's present weights with each learning rate in turn; the same batches for all.

    At the end the module has the averaged weights of the best validation of all, the start included. A learning rate
    with which the loss is no longer a number counts as infinitely bad, unless there is no other.

    Args:
        settings: for every training; its `lr` and `keep_start` are set here.
        progress: called with the number of updates done, out of `updates` times the number of rates.

    Raises:
        DivergedError: with every learning rate.
        UserError: see `optimise`.
    """
    start = [p.detach().clone() for p in module.parameters()]
    kept: list[Tensor] = []
    curve: list[Row] = []
    losses: dict[float, float] = {}
    best: tuple[float, Optimised] | None = None
    done, resumed = 0, False
    for number, lr in enumerate(lrs):
        _set(module, start)
        before, first = done, number * settings.updates

        def add(row: Row, lr: float = lr, before: int = before) -> None:
            curve.append({**row, "update": row["update"] + before, "tried_lr": lr})
            if on_row is not None:
                on_row(curve[-1])

        def advance(update: int, text: str, first: int = first) -> None:
            if progress is not None:
                progress(first + update, text)

        try:
            found = optimise(
                module,
                objective,
                replace(settings, lr=lr, keep_start=True),
                seed,
                what,
                advance,
                add,
                None if resume is None else resume.at(number),
                processes,
            )
        except DivergedError as error:
            losses[lr] = float("inf")
            done += error.after
            if number == len(lrs) - 1 and best is None:
                error.after = done  # with all learning rates
                raise
            continue
        done += found.updates
        resumed = resumed or found.resumed_at > 0
        losses[lr] = found.best_loss
        if best is None or found.best_loss < best[1].best_loss:
            best = lr, found
            kept = [p.detach().clone() for p in module.parameters()]
    assert best is not None
    _set(module, kept)
    module.eval()
    return Tried(curve, best[0], best[1], done, losses, resumed)


@torch.no_grad()
def _set(module: nn.Module, values: Sequence[Tensor]) -> None:
    for parameter, value in zip(module.parameters(), values, strict=True):
        parameter.copy_(value)
