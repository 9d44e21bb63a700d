"""How long the controls take to fit: rows are fitted for real, on a few samples, for a few updates.

What is tried follows from a row's own params, whatever its name:

- `updates` with `lrs`: a training over I(x). A group inside that has both is one more training.
- `epochs`: trainings of networks like the base, whose epoch was measured.
- neither: work that grows with the number of samples. A row without params reads each training sample once.

Dims: N samples that are tried, d coordinates of Δ.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ocd_core.errors import UserError
from ocd_core.evaluation.context import WITHOUT_TEST, Fitting
from ocd_core.evaluation.regression import RidgeParams
from ocd_core.evaluation.row import FittedRow
from ocd_core.evaluation.rows import row_class
from ocd_core.evaluation.space import DeltaSpace
from ocd_core.provenance import Lineage
from ocd_core.samples import Condition, Samples, Split, SplitName
from ocd_core.scaffold.trials import Trials, kernel_seconds, seconds, tried
from ocd_core.store import OverfitStore
from ocd_core.strict import StrictModel
from ocd_core.tasks.base import Task

_SLOW = 2.0  # seconds of a fit after which no other size is tried


@dataclass(frozen=True)
class Estimate:
    """Minutes of fitting each row, at most. unknown: rows that cannot be tried. left_out: {row: why it is left out}."""

    minutes: dict[str, float]
    unknown: list[str]
    left_out: dict[str, str]


@dataclass(frozen=True)
class Budget:
    """What trainings of networks like the base take. seconds_of_epoch: for a task; its data may be augmented.

    trained: minutes of OCD's own trainings, which rows may take whose params leave their length open.
    """

    seconds_of_epoch: Callable[[Task], float]
    trained: float


class _Rows:
    """In place of an overfit store: I(x) alone."""

    def __init__(self, condition: Condition) -> None:
        self._condition = condition

    def condition(self) -> Condition:
        return self._condition

    def __getattr__(self, name: str) -> Any:
        raise UserError(f"nothing is overfitted in a trial, so there is no {name}")


@dataclass(frozen=True)
class _Few(Fitting):
    """A few samples of each split with their I(x); coordinates of Δ are random numbers."""

    few: Mapping[SplitName, Samples] = field(kw_only=True)
    space_of_trials: DeltaSpace = field(kw_only=True)

    def _open(self, name: SplitName) -> Split:
        return self.few[name].split

    def store(self, name: SplitName) -> OverfitStore:
        rows: Any = _Rows(self.few[name].condition)
        found: OverfitStore = rows
        return found

    def samples(self, name: SplitName) -> Samples:
        return self.few[name]

    @property
    def space(self) -> DeltaSpace:
        return self.space_of_trials

    @property
    def train_condition(self) -> Condition:
        return self.few["train"].condition

    @property
    def coordinates_Nd(self) -> Tensor:
        return self._random("train")

    @property
    def val_coordinates_Md(self) -> Tensor:
        return self._random("val")

    def _random(self, name: SplitName) -> Tensor:
        return torch.randn(len(self.few[name]), self.space.size, generator=torch.Generator().manual_seed(0))


class Controls:
    """The rows of `controls.fit`, tried.

    Args:
        trials: after its `diffusion` and `scale`.
        splits: whole.
        rows: of the training store.
        budget: of trainings of the base network.
        each: seconds of the base network's pass over one sample.
    """

    def __init__(
        self,
        lineage: Lineage,
        trials: Trials,
        splits: Mapping[SplitName, Split],
        rows: int,
        budget: Budget,
        each: float,
    ) -> None:
        self.lineage, self.trials, self.splits = lineage, trials, splits
        self.rows, self.budget, self.each = rows, budget, each
        self.fitting = self._on(trials.count)

    def estimate(self) -> Estimate:
        """Try each row."""
        found = Estimate({}, [], {})
        for name in self.lineage.params.controls.fit:
            row = self._row(name)
            why = row.left_out()
            if why is not None:
                found.left_out[name] = why
                continue
            try:
                found.minutes[name] = self._minutes(row)
            except UserError:  # a row may refuse a few samples
                found.unknown.append(name)
        return found

    def _minutes(self, row: FittedRow) -> float:
        own: Any = row.params
        if own is None:
            return self.each * len(self.splits["train"]) / 60
        if isinstance(own, RidgeParams):
            return len(own.widths) * len(own.penalties) * kernel_seconds(min(self.rows, own.rows)) / 60
        keys = type(own).model_fields
        if "epochs" in keys:
            return self._epochs(row, own)
        if {"updates", "lrs", "validate_every"} <= set(keys):
            return self.budget.trained if own.updates is None else self._updates(row.family, own)
        return self._per_sample(row.family)

    def _epochs(self, row: FittedRow, own: Any) -> float:
        epoch = self.budget.seconds_of_epoch(row.task(self.fitting))
        trainings = row.networks * len(getattr(own, "lrs", [None]))
        if own.epochs is None:  # as long as OCD's, together, but at least one each
            return max(self.budget.trained, trainings * epoch / 60)
        return trainings * float(own.epochs) * epoch / 60

    def _updates(self, name: str, own: Any) -> float:
        """Each training of the row, with each learning rate and each width."""
        phases = {"": own, **_groups(own)}
        total = 0.0
        for width in getattr(own, "widths", [None]):
            for key, phase in phases.items():

                def train(updates: int, every: int, key: str = key, width: int | None = width) -> None:
                    counts = {each: updates if each == key else 1 for each in phases}
                    changes: dict[str, Any] = {"updates": counts[""], "validate_every": every, "lrs": own.lrs[:1]}
                    for each, group in _groups(own).items():
                        few = {"updates": counts[each], "lrs": group.lrs[:1]}
                        changes[each] = group.model_copy(update=few)
                    changes |= {} if width is None else {"widths": [width]}
                    self._fit(self.fitting, name, changes)

                found = tried(train, len(self.fitting.few["val"]))
                each_rate = found.minutes(phase.updates, own.validate_every, len(self.splits["val"]))
                total += len(phase.lrs) * each_rate
        return total

    def _per_sample(self, name: str) -> float:
        """Fitted on two numbers of samples, the same of train and val."""
        sizes = sorted({max(1, self.trials.count // 4), self.trials.count})
        most = max(len(self.splits["train"]), len(self.splits["val"]))
        few, *more = (self._on(size) for size in sizes)
        first = seconds(lambda: self._fit(few, name, {}))
        if first > _SLOW or not more:
            return first * most / sizes[0] / 60
        taken = [seconds(lambda fitting=fitting: self._fit(fitting, name, {})) for fitting in (few, *more)]  # type: ignore[misc]
        each = max(0.0, taken[1] - taken[0]) / (sizes[1] - sizes[0])
        return (taken[0] + each * (most - sizes[0])) / 60

    def _fit(self, fitting: "_Few", name: str, changes: Mapping[str, Any]) -> None:
        row = self._row(name, fitting)
        assert row.params is not None
        row.params = row.params.model_copy(update=changes)
        row.fit(fitting)

    def _row(self, name: str, fitting: "_Few | None" = None) -> FittedRow:
        row = row_class(name)(name, fitting or self.fitting)
        assert isinstance(row, FittedRow)
        return row

    def _on(self, count: int) -> "_Few":
        trials, lineage = self.trials, self.lineage
        few = {name: trials.first(self.splits[name], count) for name in WITHOUT_TEST}
        return _Few(lineage.artifacts, lineage.params, trials.predictor(), few=few, space_of_trials=trials.space())


def _groups(own: StrictModel) -> dict[str, Any]:
    """The groups of a row's params that are trainings too."""
    nested = {name: getattr(own, name) for name in type(own).model_fields}
    return {name: x for name, x in nested.items() if hasattr(x, "updates") and hasattr(x, "lrs")}
