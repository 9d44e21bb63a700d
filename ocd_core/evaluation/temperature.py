"""A temperature for outputs that are scores of classes: logits divided by T (Guo et al., 2017).

Networks that were moved through the loss are often too sure of themselves. A temperature of its own for every row,
chosen on the validation split, shows what remains of a difference when all are equally well calibrated.
"""

import math
from collections.abc import Sequence

from ocd_core.samples import Tensors, concatenate
from ocd_core.tasks.base import Task

RANGE = (1 / 20, 20.0)


def choose_temperature(task: Task, outputs: Sequence[Tensors], targets: Sequence[Tensors]) -> float:
    """The temperature with the lowest mean loss of one row on the validation split, within `RANGE`.

    For cross entropy the loss has a single minimum in 1 / T. Batches of outputs and targets are in the same order.

    Args:
        task: has `tempered` outputs.
    """
    from scipy.optimize import minimize_scalar

    output, target = concatenate(outputs), concatenate(targets)

    def loss(log_temperature: float) -> float:
        return float(task.loss(task.tempered(output, math.exp(log_temperature)), target).double().mean())

    low, high = (math.log(end) for end in RANGE)
    return math.exp(minimize_scalar(loss, bounds=(low, high), method="bounded", options={"xatol": 1e-4}).x)
