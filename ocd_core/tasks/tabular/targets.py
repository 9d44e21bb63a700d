"""What a table's rows are predicted to be: a number, or one of several classes.

Dims: N rows, K networks of an ensemble, C classes.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ocd_core.errors import UserError
from ocd_core.samples import paired
from ocd_core.tasks.classification import classification_metrics, mixture, most_probable
from ocd_core.tasks.metric import Metric
from ocd_core.tasks.regression import regression_metrics
from ocd_core.tasks.tabular.columns import (
    LARGEST,
    Column,
    are_numbers,
    first_that_is_no_number,
    is_text,
    numbers_of,
    texts_of,
)
from ocd_core.tasks.tabular.ranking import ndcg_metric

_SHOWN = 8  # classes in a message
_SMALLEST = float(np.finfo(np.float32).tiny)  # deviation; below, the quotient by it may be infinite


class Targets(ABC):
    """One kind of target. outputs: the number of the network's outputs."""

    outputs: int

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """Plain values from which the targets can be made again."""

    @abstractmethod
    def encode(self, values: Column, where: str) -> Tensor:
        """The column as the task's target, with the samples in the first axis.

        Raises:
            UserError: a value is not possible.
        """

    @abstractmethod
    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Of each sample, (N,)."""

    @abstractmethod
    def metrics(self, ranking_at: int | None) -> Sequence[Metric]:
        """The reported metrics, the most important first."""

    @abstractmethod
    def combine(self, outputs_KN: Tensor) -> Tensor:
        """An ensemble's output, (N, outputs)."""

    @abstractmethod
    def in_words(self, output: Tensor) -> dict[str, str | float]:
        """One sample's output."""

    def log_probabilities(self, output: Tensor) -> Tensor | None:
        """Of the classes, (N, C); None for numbers."""
        return None


class Number(Targets):
    """A number, standardised with the training rows' mean and deviation: target and output float32 (N, 1).

    The loss is the squared error of the standardised number; metrics are in the column's unit.
    """

    outputs = 1

    def __init__(self, mean: float, std: float) -> None:
        self.mean, self.std = mean, std

    @classmethod
    def fit(cls, values: Column, name: str) -> "Number":
        """The mean and the standard deviation (of the population) of the training rows.

        Raises:
            UserError: the column holds text, a single value, or values that are too small to be told apart.
        """
        if is_text(values):
            found = "" if are_numbers(values) else f", such as {first_that_is_no_number(values)[1]!r}"
            raise UserError(
                f"data.target: {name!r} holds text{found}; set data.kind to classification, correct these rows, or "
                "name another column"
            )
        numbers = values.astype(np.float64)
        if numbers.min() == numbers.max():
            raise UserError(
                f"data.target: {name!r} is {numbers[0]:g} in every training row, so there is nothing to learn"
            )
        deviation = float(numbers.std())
        if deviation < _SMALLEST:
            raise UserError(
                f"data.target: {name!r} varies by {deviation:g} in the training rows, too little for float32; choose "
                "another unit"
            )
        return cls(float(numbers.mean()), deviation)

    def describe(self) -> dict[str, Any]:
        """The two numbers."""
        return {"mean": self.mean, "std": self.std}

    def encode(self, values: Column, where: str) -> Tensor:
        """Standardised, float32 (N, 1)."""
        standardised = (numbers_of(values, "target", where).astype(np.float64) - self.mean) / self.std
        far = np.flatnonzero(np.abs(standardised) > LARGEST)
        if len(far):
            raise UserError(
                f"data.target: row {far[0]} of {where} is too far from the training rows for float32 ({len(far)} such "
                "rows); remove these rows"
            )
        return torch.from_numpy(standardised).float()[:, None]

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """The squared error, (N,); an output may be (N,) too."""
        output_N1, target_N1 = paired(output, target)
        return (output_N1 - target_N1).square()[:, 0]

    def metrics(self, ranking_at: int | None) -> Sequence[Metric]:
        """See `regression_metrics` and `ndcg_metric`."""
        found = regression_metrics(scale=self.std)
        return found if ranking_at is None else (*found, ndcg_metric(ranking_at, self.mean, self.std))

    def combine(self, outputs_KN: Tensor) -> Tensor:
        """The mean."""
        return outputs_KN.mean(0)

    def in_words(self, output: Tensor) -> dict[str, str | float]:
        """The number in the column's unit."""
        return {"value": float(output.flatten()[0]) * self.std + self.mean}


class Classes(Targets):
    """One of several classes: target int64 (N,), outputs logits float32 (N, C)."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names, self.outputs = list(names), len(names)

    @classmethod
    def fit(cls, values: Column, name: str) -> "Classes":
        """The classes of the training rows, in order.

        Raises:
            UserError: there is only one.
        """
        # numbers in the order of numbers: 2 before 10
        found = texts_of(np.unique(values)) if not is_text(values) else sorted(set(values))
        if len(found) < 2:
            raise UserError(f"data.target: {name!r} has one class in the training rows, {found[0]!r}; two are needed")
        return cls(list(found))

    def describe(self) -> dict[str, Any]:
        """The names."""
        return {"classes": self.names}

    def encode(self, values: Column, where: str) -> Tensor:
        """The numbers of the classes, int64 (N,)."""
        shown = ", ".join(self.names[:_SHOWN]) + (", ..." if len(self.names) > _SHOWN else "")
        number = {name: i for i, name in enumerate(self.names)}
        texts = texts_of(values)
        unknown = [i for i, text in enumerate(texts) if text not in number]
        if unknown:
            raise UserError(
                f"data.target: {where} has the class {texts[unknown[0]]!r}, which no training row has ({len(unknown)} "
                f"such rows); the classes are {shown}"
            )
        return torch.tensor([number[text] for text in texts], dtype=torch.int64)

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """Cross entropy in nats, (N,)."""
        return F.cross_entropy(output, target, reduction="none")

    def metrics(self, ranking_at: int | None) -> Sequence[Metric]:
        """See `classification_metrics`."""
        return classification_metrics(self.loss)

    def combine(self, outputs_KN: Tensor) -> Tensor:
        """See `mixture`."""
        return mixture(outputs_KN)

    def in_words(self, output: Tensor) -> dict[str, str | float]:
        """The most probable class and its probability."""
        best, probability = most_probable(output)
        return {"class": self.names[best], "probability": probability}

    def log_probabilities(self, output: Tensor) -> Tensor:
        """Log-softmax of the logits, (N, C)."""
        return F.log_softmax(output, -1)


def restored(kind: str, described: Mapping[str, Any]) -> Targets:
    """The targets of a `data.kind` from what `describe` gave."""
    return Number(**described) if kind == "regression" else Classes(described["classes"])
