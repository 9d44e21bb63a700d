"""What the rows of a store keep of the base network, I(x), and of the label: once per sample, for all its replicas.

It is for domains that draw the inputs of each step: their I(x) is of the whole sample, whatever its replicas see.
"""

import threading
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor

from ocd_core.errors import UserError
from ocd_core.network.cut import CutModel
from ocd_core.network.moves import base_pass
from ocd_core.samples import Batch, Condition, Split
from ocd_core.tasks.base import Task

CONDITION = ("layer_input", "layer_activation", "base_output")  # I(x), which networks are trained on
TARGET = "target"


class BaseValues:
    """I(x) and the stored label of rows, as the store names them.

    The replicas of a sample are consecutive rows, so that the values of one sample are kept from call to call.
    """

    def __init__(
        self, task: Task, model: CutModel, split: Split, reading: AbstractContextManager[Any] | None = None
    ) -> None:
        self._task, self._model, self._split = task, model, split
        self._reading = reading or threading.Lock()  # held while the split is read
        self.forget()

    def anew(self) -> "BaseValues":
        """The same without any values, for another thread."""
        return BaseValues(self._task, self._model, self._split, self._reading)

    def forget(self) -> None:
        """Compute the values of every sample anew: what follows is then a function of the calls that follow."""
        self._sample_id, self._values = torch.empty(0, dtype=torch.int64), dict[str, Tensor]()

    def of(self, sample_id: Tensor) -> dict[str, Tensor]:
        """{name: (N, ...)} for the samples of N rows (int64, (N,)), which may repeat."""
        wanted = torch.unique(sample_id)
        new = wanted[~torch.isin(wanted, self._sample_id)]
        if len(new):
            found = self._compute(new)
            if self._values:
                found = {name: torch.cat([self._values[name], value]) for name, value in found.items()}
            self._sample_id, self._values = torch.cat([self._sample_id, new]), found
        place = (sample_id[:, None] == self._sample_id).int().argmax(1)
        values = {name: value[place.to(value.device)] for name, value in self._values.items()}
        self._sample_id, self._values = sample_id[-1:], {name: value[-1:] for name, value in values.items()}
        return values

    def _compute(self, sample_id: Tensor) -> dict[str, Tensor]:
        with self._reading:
            batch = self._split.batch(sample_id).to(self._model.device)
        return self.named(base_pass(self._task, self._model, batch).condition, batch)

    def named(self, condition: Condition, batch: Batch) -> dict[str, Tensor]:
        """I(x) of a batch and its label by the names in the store."""
        target = storable(self._task.stored_target(batch))
        return {**dict(zip(CONDITION, condition.parts(), strict=True)), TARGET: target}


def storable(target: Tensor) -> Tensor:
    """Labels in a dtype that a store keeps, with the same values: bool as uint8, bfloat16 as float32.

    Raises:
        UserError: they are complex.
    """
    if target.is_complex():
        raise UserError("the targets are complex numbers; give real and imaginary parts in an axis of their own")
    kept = {torch.bool: torch.uint8, torch.bfloat16: torch.float32}
    return target.to(kept.get(target.dtype, target.dtype))
