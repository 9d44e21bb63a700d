"""`check_task` checks that your task follows the Task protocol. Call it from your own tests.

Every violation is an AssertionError that says what is wrong and what to do. The parts of the protocol come first, one
by one, with an untrained network; then every stage and every row of the table runs one step on a few samples. It takes
about as long as preparing the data twice, plus a few seconds.
"""

from collections.abc import Sequence
from pathlib import Path

import torch

from ocd_core.samples import SPLITS
from ocd_core.strict import StrictModel
from ocd_core.tasks.base import Task
from ocd_core.testing.common import doubled, require, some_ids
from ocd_core.testing.condition import check_conditions, check_pictures, check_words
from ocd_core.testing.data import check_prepare, check_split, check_step_batches
from ocd_core.testing.network import check_losses, check_model
from ocd_core.testing.outputs import (
    check_classes,
    check_combine,
    check_log_probabilities,
    check_metrics,
    check_stored_target,
)
from ocd_core.testing.rehearsal import rehearse

__all__ = ["check_task"]


def check_task(
    task: Task, folder: Path | str, layers: Sequence[str] | None = None, example: Path | None = None
) -> None:
    """Check that a task follows the protocol of `ocd_core.tasks.Task`.

    Args:
        task: with params that suit a test (few samples, a small network).
        folder: an empty folder to prepare the data into.
        layers: the layers to cut the network at (default: every layer whose weight is a matrix); several that move as
            one are named `one+other`. The rehearsal of the stages moves the last one that can move.
        example: a file for `read_input`, if the task reads single inputs.

    Raises:
        AssertionError: the first violation.
    """
    require(
        issubclass(type(task).Data, StrictModel) and isinstance(task.data, type(task).Data),
        f"set {type(task).__name__}.Data to a StrictModel and build the task from an instance of it",
    )
    prepared = check_prepare(task, Path(folder))
    task.bind(prepared)
    splits = {name: task.open(prepared, name) for name in SPLITS}
    for name, split in splits.items():
        check_split(split, name)
    train = splits["train"]
    batch = train.batch(some_ids(train))
    check_step_batches(task, train)
    model = check_model(task, batch)
    with torch.no_grad():
        output = model(*doubled(batch).inputs)
    check_losses(task, output, batch)
    check_metrics(task, output, train)
    check_combine(task, output, batch)
    check_classes(task, output)
    check_log_probabilities(task, output)
    check_stored_target(task, batch)
    layer = check_conditions(task, model, batch, layers)
    check_words(task, model, batch, output, example)
    check_pictures(task)
    rehearse(task, prepared, layer, Path(folder) / "rehearsal")
