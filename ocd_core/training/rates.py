"""The learning rate of each update: a schedule, and a rise at the start."""

import math
from collections.abc import Sequence
from typing import Literal

RateSchedule = Literal["constant", "cosine", "steps"]


def learning_rate(
    lr: float,
    update: int,
    updates: int,
    schedule: RateSchedule = "constant",
    warmup: float = 0,
    steps: Sequence[float] = (),
    factor: float = 1.0,
) -> float:
    """The rate of update 0, 1, ..., `updates` - 1: a linear rise over `warmup` updates, times the schedule.

    `constant` is lr; `cosine` is lr · (1 + cos(π · update / updates)) / 2; `steps` is lr times `factor` for each of
    `steps` (in updates) that has been reached.
    """
    rise = min(1.0, (update + 1) / warmup) if warmup else 1.0
    fall = 1.0
    if schedule == "cosine":
        fall = 0.5 * (1 + math.cos(math.pi * update / updates))
    elif schedule == "steps":
        fall = factor ** sum(update >= step for step in steps)
    return lr * rise * fall
