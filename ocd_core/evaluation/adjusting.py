"""What each row chooses on the validation split, so that rows are compared at their best calibration."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import torch

from ocd_core.evaluation.noise import Noise, choose_noise
from ocd_core.evaluation.temperature import choose_temperature
from ocd_core.samples import Batch, Tensors, map_tensors
from ocd_core.tasks.base import Metric, Task

# a batch with every row's outputs, and those of its networks if the row has several
Answers = tuple[Batch, Iterable[tuple[str, Tensors, Tensors | None]]]


@dataclass(frozen=True)
class Adjustments:
    """{row: temperature of its logits}, of a task with classes; {row: deviation of the noise}, of one with numbers."""

    temperatures: Mapping[str, float] = field(default_factory=dict)
    noise: Mapping[str, float] = field(default_factory=dict)


def score_of_draws(task: Task) -> Metric | None:
    """The first metric that sees draws: a row's noise is chosen by it; None if the task has none."""
    return next((m for m in task.metrics if m.sees == "draws"), None)


def choose_adjustments(task: Task, has_classes: bool, seed: int, answers: Iterable[Answers]) -> Adjustments:
    """Each row's choices from its answers on the validation split.

    A row that lacks a batch has failed, and has no choices.
    """
    score = score_of_draws(task)
    batches: list[Batch] = []
    outputs: dict[str, list[Tensors]] = {}
    draws: dict[str, list[Tensors]] = {}
    for batch, of_rows in answers:
        batches.append(batch)
        for row, output, of_networks in of_rows:
            outputs.setdefault(row, []).append(output)
            several = map_tensors(lambda x: x[None], output) if of_networks is None else of_networks
            draws.setdefault(row, []).append(several)
    whole = [row for row, parts in outputs.items() if len(parts) == len(batches)]
    targets = [batch.target for batch in batches]
    noise = Noise(torch.cat([batch.sample_id for batch in batches]), seed)
    return Adjustments(
        {row: choose_temperature(task, outputs[row], targets) for row in whole} if has_classes else {},
        {row: choose_noise(score, draws[row], targets, noise) for row in whole} if score is not None else {},
    )
