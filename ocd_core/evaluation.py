"""Every method's outputs on the test split, measured in the same way.

Rows: the base network, OCD with one draw, OCD's ensemble, and the bound, which overfits each test sample with its
own label and so cannot be reached.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ocd_core.apply import base_pass, outputs_with_delta, row_chunks, rows_within
from ocd_core.config import EvaluateParams
from ocd_core.errors import UserError
from ocd_core.predictor import Predictor
from ocd_core.progress import Progress, no_progress
from ocd_core.statistics import Values, bootstrap_interval, paired_z
from ocd_core.store import OverfitStore
from ocd_core.tasks.base import Metric, Split, Task, whole_split

ROW_TITLES = {
    "base": "base network",
    "ocd": "OCD (one draw)",
    "ocd_ensemble": "OCD, ensemble of {draws}",
    "bound": "overfitted on test (bound)",
}
_MEMORY_MB = 512


@dataclass(frozen=True)
class Evaluation:
    """Per-sample values of each row and metric, {row: {metric: (N,) float64}}, and of ρ."""

    values: dict[str, dict[str, Values]]
    rho: Values | None
    metrics: tuple[Metric, ...]
    draws: int

    @property
    def samples(self) -> int:
        """How many test samples."""
        return len(next(iter(self.values["base"].values())))

    def table(self, params: EvaluateParams, seed: int) -> list[dict[str, Any]]:
        """One entry a row: title, and for each metric the value, its 95 % interval, and paired z against the base."""
        rows = []
        for row, values in self.values.items():
            entry: dict[str, Any] = {"row": row, "title": ROW_TITLES[row].format(draws=self.draws), "n": self.samples}
            for m in self.metrics:
                low, high = bootstrap_interval(values[m.name], params.bootstrap, seed, m.finish)
                entry[m.name] = {
                    "value": m.finish(float(values[m.name].mean())),
                    "low": low,
                    "high": high,
                    "z_against_base": paired_z(values[m.name], self.values["base"][m.name]),
                }
            rows.append(entry)
        return rows

    def summary(self) -> dict[str, Any]:
        """{row: {metric: value}} and the count of samples, for `dvc metrics`."""
        rows = {
            row: {m.name: m.finish(float(values[m.name].mean())) for m in self.metrics}
            for row, values in self.values.items()
        }
        return {"n": self.samples, **rows}

    def per_sample(self) -> list[dict[str, Any]]:
        """One entry a test sample with every row's metrics."""
        columns: dict[str, Values] = {
            f"{row}_{name}": array for row, values in self.values.items() for name, array in values.items()
        }
        rho = {} if self.rho is None else {"rho": self.rho}
        return [
            {"sample_id": i, **{name: float(array[i]) for name, array in (columns | rho).items()}}
            for i in range(self.samples)
        ]


def evaluate(
    predictor: Predictor, split: Split, bound: OverfitStore, params: EvaluateParams, progress: Progress = no_progress
) -> Evaluation:
    """Evaluate on every sample of a split.

    Args:
        bound: the overfit store of the same split (its own labels: for the bound alone).

    Raises:
        UserError: the store is of another split, or an output is not finite.
    """
    count = len(split)
    replicas = int(bound.attributes["config"]["overfit"]["replicas"])
    if len(bound) != count * replicas:
        raise UserError(f"the overfit store has {len(bound) // replicas} samples, the split {count}; run 'dvc repro'")
    metrics = tuple(predictor.task.metrics)
    collected: dict[str, dict[str, list[Values]]] = {row: {m.name: [] for m in metrics} for row in ROW_TITLES}
    rho: list[Values] = []
    model = predictor.split
    example = split.batch(torch.zeros(1, dtype=torch.int64))
    size = rows_within(model, example, _MEMORY_MB, matrices=2)
    for rows in row_chunks(count, size):
        batch = split.batch(whole_split(split)[rows])
        base = base_pass(predictor.task, model, batch)
        prediction = predictor.predict_pass(base, batch.sample_id, params.draws, "ensemble")
        delta = torch.from_numpy(bound.deltas(batch.sample_id.numpy() * replicas))  # of each sample's first replica
        outputs = {
            "base": base.output,
            "ocd": prediction.draws[0],
            "ocd_ensemble": prediction.output,
            "bound": outputs_with_delta(model, base.cut, delta),
        }
        for row, output in outputs.items():
            for metric, measured in _measure(predictor.task, metrics, row, output, batch.target):
                collected[row][metric].append(measured)
        if prediction.rho is not None:
            rho.append(prediction.rho.double().numpy())
        progress(rows.stop, "")
    values = {row: {m: np.concatenate(v) for m, v in by_metric.items()} for row, by_metric in collected.items()}
    return Evaluation(values, np.concatenate(rho) if rho else None, metrics, params.draws)


def _measure(
    task: Task, metrics: tuple[Metric, ...], row: str, output: Tensor, target: Tensor
) -> Iterator[tuple[str, Values]]:
    if not torch.isfinite(output).all():
        raise UserError(f"{ROW_TITLES[row]!r} gives outputs that are not finite; look at the drawn Δ and at ρ")
    for metric in metrics:
        yield metric.name, metric.per_sample(output, target).double().numpy()
