"""What it costs a row to answer one test sample."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from ocd_core.evaluation.row import Row
from ocd_core.evaluation.shared_pass import SharedPass
from ocd_core.predictor import Predictor
from ocd_core.samples import Batch, Tensors
from ocd_core.training.devices import seconds_when_done
from ocd_core.training.flops import flops

_COUNTED = 2  # samples on which operations are counted


@dataclass(frozen=True)
class Cost:
    """Of one sample. seconds: wall time; flops: operations of matrix products and convolutions."""

    seconds: float
    flops: int


def cost_of_answers(row: Row, predictor: Predictor, batch: Batch) -> Cost:
    """Measure a row on its own: with the base's pass, sharing nothing with other rows.

    Args:
        row: answers batch by batch, and has answered before, so that nothing is done for the first time.
        batch: of the test split.
    """
    assert not row.whole_split
    few = batch.select(slice(0, _COUNTED))
    counted, timed = (SharedPass(predictor, part, "test") for part in (few, batch))
    operations = flops(lambda: row.outputs(counted))
    start = seconds_when_done(predictor.device)
    row.outputs(timed)
    return Cost((seconds_when_done(predictor.device) - start) / len(batch), operations // len(few))


def with_cost(answer: Callable[[], Tensors], samples: int, device: torch.device) -> tuple[Tensors, Cost]:
    """The answer of a row that answers a whole split at once, and its cost per sample.

    Both are taken in the same call, because a second one would double the time; counting slows it a little.
    device: where it is answered.
    """
    found: list[Tensors] = []
    start = seconds_when_done(device)
    operations = flops(lambda: found.append(answer()))
    return found[0], Cost((seconds_when_done(device) - start) / samples, operations // samples)
