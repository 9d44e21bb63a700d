"""Fit the rows of a run one by one, save them in one file, and load them for the evaluation."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ocd_core.built_size import build_bounded, no_larger_than
from ocd_core.codes.representations import representation_class
from ocd_core.errors import UserError
from ocd_core.evaluation.context import Context, Fitting
from ocd_core.evaluation.row import FittedRow, Row, Saved
from ocd_core.evaluation.rows import row_class
from ocd_core.evaluation.space import DeltaSpace
from ocd_core.training.devices import seconds_when_done
from ocd_core.weights import (
    WEIGHTS,
    BaseId,
    described_by,
    load_network,
    load_strictly,
    refuse_another_base,
    save_network,
)

KIND = "controls"
_SPACE = "space"


@dataclass(frozen=True)
class FittedRows:
    """The result of `fit_rows`.

    rows: in the order of fitting. metrics: {row: plain numbers}. curves: of the trained rows, {row: entries}.
    cost_flops: operations of training, {"ocd": {part: count, "total": count}, row: {"allowed": count, "total":
    count}}. left_out: {row: why the run cannot have it}. seconds: {row: of fitting it, on the clock}; what several rows
    share counts for the first of them.
    """

    rows: list[FittedRow]
    metrics: dict[str, dict[str, Any]]
    curves: dict[str, list[dict[str, float]]]
    cost_flops: dict[str, dict[str, int]]
    left_out: dict[str, str] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)

    @property
    def space(self) -> DeltaSpace | None:
        """The space that several rows share, if any row uses it."""
        return next((row.space for row in self.rows if row.space is not None), None)

    def summary(self) -> dict[str, Any]:
        """Plain values for the metrics file: each row's metrics, the costs, and the rows that were left out, if any."""
        left_out = {"left_out": self.left_out} if self.left_out else {}
        return {**self.metrics, "cost_flops": self.cost_flops, **left_out}

    def save(self, folder: Path, base: BaseId) -> None:
        """Write `model.safetensors` and `config.json`, which names the base network that the rows are for."""
        state: dict[str, Tensor] = {}
        for row in self.rows:
            state |= {_full_name(_prefix(row), name): tensor for name, tensor in row.tensors().items()}
        config: dict[str, Any] = {"rows": {row.family: row.config() for row in self.rows}}
        if self.space is not None:
            representation = self.space.representation
            config[_SPACE] = {"name": representation.name, "args": representation.config()}
            state |= {_full_name(_SPACE, name): tensor for name, tensor in self.space.state_dict().items()}
        save_network(folder, KIND, state, config, base)


def fit_rows(fitting: Fitting, started: Callable[[str], None] = lambda _name: None) -> FittedRows:
    """Fit the rows of `controls.fit`, in this order.

    Gradients and draws are computed on the predictor's device; the fitted rows are returned on the CPU.

    Args:
        started: called with the name of each row before it is fitted.
    """
    result = FittedRows([], {}, {}, {"ocd": fitting.ocd_flops})
    if fitting.untuned is None:
        result.cost_flops["ocd_tuned"] = fitting.tuned_flops
    for name in fitting.params.controls.fit:
        started(name)
        row = row_class(name)(name, fitting)
        assert isinstance(row, FittedRow)
        reason = row.left_out()
        if reason is not None:
            result.left_out[name] = reason
            continue
        start = seconds_when_done(fitting.device)
        fit = row.fit(fitting)
        result.seconds[name] = seconds_when_done(fitting.device) - start
        result.rows.append(row)
        result.metrics[name] = fit.metrics
        if fit.curve:
            result.curves[name] = fit.curve
        if fit.flops is not None:
            result.cost_flops[name] = fit.flops
        result.cost_flops.update({f"{name}_{variant}": cost for variant, cost in fit.flops_of_variants.items()})
    return result


def load_rows(context: Context, names: Sequence[str]) -> tuple[list[Row], dict[str, str]]:
    """All variants of rows, with fitted rows loaded from the run's folder of controls; and {row: why it is left out}.

    A reason that all variants of a row share is given once, under the row's name in params.

    Raises:
        UserError: a name is unknown, a row was not fitted, or files are missing, damaged or for another network.
    """
    saved: _SavedRows | None = None
    rows: list[Row] = []
    left_out: dict[str, str] = {}
    for name in names:
        cls = row_class(name)
        seen = context if cls.sees_labels else context.without_test()
        variants = [cls(name, seen, variant) for variant in cls.variants(context.params)]
        reasons = {row.name: reason for row in variants if (reason := row.left_out()) is not None}
        one_reason = len(reasons) == len(variants) and len(set(reasons.values())) == 1
        left_out |= {name: reasons[variants[0].name]} if one_reason else reasons
        for row in variants:
            if row.name in reasons:
                continue
            if isinstance(row, FittedRow):
                saved = saved or _SavedRows(context)
                saved.restore(row)
            rows.append(row)
    return rows, left_out


class _SavedRows:
    """The file of all fitted rows."""

    def __init__(self, context: Context) -> None:
        self.folder = context.run.need(context.run.controls, "train_controls")
        self.state, self.config = load_network(self.folder, KIND)
        model = context.predictor.model
        refuse_another_base(self.folder, BaseId.of(context.run.base / WEIGHTS, model.layer_name))
        self.space: DeltaSpace | None = None
        with described_by(self.folder):
            self.rows: dict[str, dict[str, Any]] = self.config["rows"]
            if _SPACE in self.config:
                described = self.config[_SPACE]
                self.space = build_bounded(
                    lambda: DeltaSpace(representation_class(described["name"])(**described["args"])), *self._held()
                )
        if self.space is not None:
            load_strictly(self.space, self._tensors(_SPACE), self.folder)
            self.space.eval().requires_grad_(False).to(context.device)

    def restore(self, row: FittedRow) -> None:
        """Load one row."""
        if row.family not in self.rows:
            raise UserError(f"{self.folder} holds no {row.family!r}; run the stage train_controls again ('dvc repro')")
        prefix = _prefix(row)
        with described_by(self.folder), no_larger_than(*self._held()):
            row.load(Saved(self._tensors(prefix), self.rows[row.family], self.folder, prefix, self.space))

    def _held(self) -> tuple[list[torch.Size], Path]:
        return [tensor.shape for tensor in self.state.values()], self.folder / WEIGHTS

    def _tensors(self, prefix: str) -> dict[str, Tensor]:
        named = {name: tensor for name, tensor in self.state.items() if name == prefix}
        below = {name: tensor for name, tensor in self.state.items() if name.startswith(f"{prefix}.")}
        return {name[len(prefix) + 1 :]: tensor for name, tensor in {**named, **below}.items()}


def _prefix(row: FittedRow) -> str:
    return row.family if row.prefix is None else row.prefix


def _full_name(prefix: str, name: str) -> str:
    return f"{prefix}.{name}" if name else prefix
