"""Tables: each row is a sample, with numbers and categories as features.

Dims: N rows, F features, K networks of an ensemble, C classes.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ocd_core.artifacts import read_json, write_json
from ocd_core.errors import UserError
from ocd_core.models import build_model
from ocd_core.rng import permutation
from ocd_core.samples import Batch, Split, SplitName
from ocd_core.strict import StrictModel
from ocd_core.tasks.base import Metric, Task
from ocd_core.tasks.division import divide, grouped_order, stratified_order
from ocd_core.tasks.prepared import need_file, split_file, split_tensors
from ocd_core.tasks.tabular.columns import is_missing, read_file
from ocd_core.tasks.tabular.features import DESCRIPTION, PREPARE_AGAIN, TENSORS, Features
from ocd_core.tasks.tabular.params import TabularData
from ocd_core.tasks.tabular.ranking import check_relevance
from ocd_core.tasks.tabular.sources import Table, read_parts
from ocd_core.tasks.tabular.targets import Classes, Number, Targets, restored
from ocd_core.weights import described_by, save_tensors

_TARGETS = "targets.json"


@dataclass(frozen=True)
class TableSplit:
    """The rows of one split. features: float32 (N, F). target: see `Targets`. groups: int64 (N,), or None."""

    features: Tensor
    target: Tensor
    groups: Tensor | None

    def __len__(self) -> int:
        return len(self.features)

    def batch(self, sample_id: Tensor) -> Batch:
        """The samples of these rows (int64, (N,)), in this order."""
        return Batch((self.features[sample_id],), self.target[sample_id], sample_id)


class Tabular(Task):
    """Rows of a table. Inputs: float32 (N, F). Outputs: standardised numbers (N, 1), or logits (N, C).

    The network's constructor receives `in_features` and `out_features` besides `base.model.args`.
    """

    Data: ClassVar[type[StrictModel]] = TabularData
    data: TabularData
    evaluation_batch = 10_000
    targets: Targets  # after `bind`
    _features: Features | None = None

    def prepare(self, dest: Path) -> dict[str, Any]:
        """Write one safetensors file per split, and the fitted transform of features and targets.

        A split holds features float32 (N, F), target, source_row int64 (its row in the part of the source from which it
        was taken), and group int64 if there are groups. Samples that are taken from a part are a seeded draw:
        stratified for classes, of whole groups if there are groups.

        Raises:
            UserError: the raw data is missing or not as the params say.
        """
        data = self.data
        parts, origin = read_parts(data)
        divided = divide(
            {part: self._order(table, part) for part, table in parts.items()},
            {"train": data.train_size, "val": data.val_size, "test": data.test_size},
            _group_numbers(parts),
        )
        tables = {split: parts[part].select(rows.numpy()) for split, (part, rows) in divided.items()}
        groups = _group_numbers(tables)
        _refuse_shared_groups(groups)
        train = tables["train"]
        features = Features.fit(train.features, data.transform, data.split_seed)
        name = data.target or "the relevance"
        targets = (Number if data.kind == "regression" else Classes).fit(train.target, name)
        found: dict[SplitName, dict[str, Tensor]] = {}
        for split, table in tables.items():
            if data.ranking_at is not None:
                check_relevance(table.target, f"the {split} split")
            found[split] = {
                "features": features.apply(table.features, f"the {split} split"),
                "target": targets.encode(table.target, f"the {split} split"),
                "source_row": divided[split][1],
                **({} if groups is None else {"group": groups[split]}),
            }
        dest.mkdir(parents=True, exist_ok=True)
        for split, tensors in found.items():
            save_tensors(tensors, split_file(dest, split))
        features.save(dest)
        write_json(dest / _TARGETS, targets.describe())
        return {
            "source": data.path or data.source,
            "licence": origin.licence,
            "files": origin.files,
            **({"left_out": origin.left_out} if origin.left_out else {}),
            "splits": {split: _described(table, divided[split][0], features) for split, table in tables.items()},
            "features": len(features.names),
            "target": {"column": data.target, **targets.describe()},
        }

    def _order(self, table: Table, part: str) -> Tensor:
        seed, purpose = self.data.split_seed, f"divide {part}"
        if table.group is not None:
            return grouped_order(torch.from_numpy(np.unique(table.group, return_inverse=True)[1]), seed, purpose)
        if self.data.kind == "classification":
            return stratified_order(torch.from_numpy(np.unique(table.target, return_inverse=True)[1]), seed, purpose)
        return permutation(len(table), seed, purpose)

    def bind(self, prepared: Path) -> None:
        """Read the fitted transforms.

        Raises:
            UserError: they are missing or damaged.
        """
        self._features = Features.load(prepared)
        path = need_file(prepared / _TARGETS)
        with described_by(path, PREPARE_AGAIN):
            self.targets = restored(self.data.kind, read_json(path))

    def travelling(self, prepared: Path) -> dict[str, Path]:
        """The fitted transforms of features and targets."""
        return {name: prepared / name for name in (DESCRIPTION, TENSORS, _TARGETS)}

    @property
    def features(self) -> Features:
        """The fitted transform of the features.

        Raises:
            UserError: the task is not bound.
        """
        if self._features is None:
            raise UserError("the table is not read yet; run the stage prepare first")
        return self._features

    def open(self, prepared: Path, split: SplitName) -> Split:
        """One split of what `prepare` wrote.

        Raises:
            UserError: the file is missing, damaged, or was prepared with other params.
        """
        path, tensors = split_file(prepared, split), split_tensors(prepared, split)
        features, target = tensors.get("features"), tensors.get("target")
        wide = len(self.features.names)
        if features is None or target is None or features.shape != (len(target), wide) or not len(target):
            raise UserError(f"{path} does not hold rows of {wide} features; run the stage prepare again")
        return TableSplit(features, target, tensors.get("group"))

    def build_model(self) -> nn.Module:
        """The base network for the table's features and targets."""
        name, args = self._model
        return build_model(
            name, {"in_features": len(self.features.names), "out_features": self.targets.outputs, **args}
        )

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        """The squared error of the standardised target, or cross entropy in nats, (N,)."""
        return self.targets.loss(output, target)

    def training_loss(self, output: Tensor, target: Tensor, label_smoothing: float) -> Tensor:
        """The loss, (N,); of classes with (1 - s) · the label + s · all classes equally, for a smoothing of s.

        Raises:
            UserError: smoothing is asked for, but the target is a number.
        """
        if isinstance(self.targets, Classes):
            return F.cross_entropy(output, target, reduction="none", label_smoothing=label_smoothing)
        return super().training_loss(output, target, label_smoothing)

    @property
    def metrics(self) -> Sequence[Metric]:
        """In the target's unit; see `Targets.metrics`."""
        return self.targets.metrics(self.data.ranking_at)

    def combine(self, outputs_KN: Tensor) -> Tensor:
        """The mean number, or the logarithm of the mean probabilities."""
        return self.targets.combine(outputs_KN)

    def predicted_class(self, output: Tensor) -> Tensor | None:
        """The most probable class, int64 (N,); None for numbers."""
        return output.argmax(-1) if isinstance(self.targets, Classes) else None

    def log_probabilities(self, output: Tensor) -> Tensor | None:
        """Of the classes, (N, C); None for numbers."""
        return self.targets.log_probabilities(output)

    def read_input(self, path: Path) -> tuple[Tensor, ...]:
        """A Parquet or CSV file with one row and the training table's columns as the model's input, float32 (1, F).

        A category that no training row has, which is 0 in all features of its column, is warned of.

        Raises:
            UserError: the file is not readable, has another number of rows, or lacks a column.
        """
        wanted = [*self.features.numbers, *self.features.categories]
        columns = read_file(path, wanted, list(self.features.categories))
        rows = len(next(iter(columns.values()))) if columns else 0
        if rows != 1:
            raise UserError(f"{path} has {rows} rows; a file with one row is needed")
        x_1F = self.features.apply(columns, str(path))
        for name, (value,) in self.features.unseen(columns).items():
            what = "no value" if value is None else f"the category {value!r}"
            warnings.warn(f"{path} has {what} in column {name!r}, as no training row has", stacklevel=2)
        return (x_1F,)

    def describe_output(self, output: Tensor) -> dict[str, str | float]:
        """The number in the column's unit; or the most probable class and its probability."""
        return self.targets.in_words(output)


def _group_numbers(tables: dict[Any, Table]) -> dict[Any, Tensor] | None:
    """The group of each row, numbered over all tables, int64 (N,); None without groups."""
    found = [table.group for table in tables.values() if table.group is not None]
    if len(found) < len(tables):
        return None
    names = np.concatenate(found)
    numbers = torch.from_numpy(np.unique(names, return_inverse=True)[1])
    return dict(zip(tables, torch.split(numbers, [len(table) for table in tables.values()]), strict=True))


def _refuse_shared_groups(groups: dict[SplitName, Tensor] | None) -> None:
    seen: dict[int, SplitName] = {}
    for split, numbers in (groups or {}).items():
        own = torch.unique(numbers).tolist()
        both = [number for number in own if number in seen]
        if both:
            raise UserError(
                f"{len(both)} groups (queries) are in both {seen[both[0]]} and {split}; a group may be in one split "
                "only"
            )
        seen |= dict.fromkeys(own, split)


def _described(table: Table, part: str, features: Features) -> dict[str, Any]:
    found: dict[str, Any] = {"samples": len(table), "taken_from": part}
    if table.group is not None:
        found["groups"] = len(np.unique(table.group))
    missing = {name: int(is_missing(values).sum()) for name, values in table.features.items()}
    missing = {name: count for name, count in missing.items() if count}
    unseen = {name: len(values) for name, values in features.unseen(table.features).items()}
    return found | ({"missing": missing} if missing else {}) | ({"unseen_categories": unseen} if unseen else {})


TASK = Tabular
