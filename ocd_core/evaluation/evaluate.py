"""Measure the outputs of every row on the test split in the same way.

The evaluation goes batch by batch: one pass of the base network, then each row's outputs (`ocd_core.evaluation.rows`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ocd_core.errors import UserError
from ocd_core.evaluation.context import Context
from ocd_core.evaluation.figures import Figure, MeanFigure, Measuring
from ocd_core.evaluation.params import EvaluateParams
from ocd_core.evaluation.row import Row
from ocd_core.evaluation.shared_pass import SharedPass
from ocd_core.evaluation.statistics import Values
from ocd_core.network.moves import row_chunks, rows_within
from ocd_core.progress import Progress, no_progress
from ocd_core.samples import groups_of, is_finite, map_tensors, whole_split
from ocd_core.tasks.base import Metric

BASE, BOUND = "base", "bound"  # the gap between these rows is what others close
_MEMORY_MB = 512


@dataclass(frozen=True)
class Evaluation:
    """Each row's value of each metric, {row: {metric: figure}}, and ρ of each sample.

    samples, groups: how many the test split has; groups is None if it has none. titles: {row: its name in tables}.
    left_out: {row: why it has no values}. details: see `Row.details`.
    """

    figures: Mapping[str, Mapping[str, Figure]]
    metrics: tuple[Metric, ...]
    samples: int
    titles: Mapping[str, str]
    groups: int | None = None
    rho: Values | None = None
    left_out: Mapping[str, str] = field(default_factory=dict)
    details: Mapping[str, dict[str, Any]] = field(default_factory=dict)

    def gap_closed(self, row: str) -> float | None:
        """(base - row) / (base - bound) of the first metric's mean: 0 is the base, 1 the bound; None without a gap."""
        if BOUND not in self.figures:
            return None
        means = {r: self.figures[r][self.metrics[0].name].mean for r in (BASE, row, BOUND)}
        gap = means[BASE] - means[BOUND]
        return (means[BASE] - means[row]) / gap if gap else None

    def table(self, params: EvaluateParams, seed: int) -> list[dict[str, Any]]:
        """One entry per row: title, gap_closed, and each metric's value, 95 % interval and z against the base.

        z has the sign of the reported metric: positive if the PSNR is higher.
        """
        rows = []
        for row, figures in self.figures.items():
            entry: dict[str, Any] = {
                "row": row,
                "title": self.titles[row],
                "n": self.samples,
                "gap_closed": self.gap_closed(row),
            }
            for m in self.metrics:
                figure, base = figures[m.name], self.figures[BASE][m.name]
                low, high = figure.interval(params.bootstrap, seed)
                z = figure.z(base, params.bootstrap, seed)
                entry[m.name] = {
                    "value": figure.value,
                    "low": low,
                    "high": high,
                    "z_against_base": -z if z * (figure.value - base.value) < 0 else z,
                }
            rows.append(entry)
        return rows

    def summary(self) -> dict[str, Any]:
        """{row: {metric: value}} and the number of samples, for `dvc metrics`."""
        rows = {row: {m.name: figures[m.name].value for m in self.metrics} for row, figures in self.figures.items()}
        return {"n": self.samples, **rows}

    def per_sample(self) -> list[dict[str, Any]]:
        """One entry per test sample, with every row's per-sample metrics as they are reported (the PSNR of a view)."""
        columns = {
            f"{row}_{m.name}": [m.finish(float(v)) for v in figure.values]
            for row, figures in self.figures.items()
            for m in self.metrics
            if m.kind == "per_sample" and isinstance(figure := figures[m.name], MeanFigure)
        }
        rho = {} if self.rho is None else {"rho": self.rho.tolist()}
        return [
            {"sample_id": i, **{name: column[i] for name, column in (columns | rho).items()}}
            for i in range(self.samples)
        ]


@torch.no_grad()
def evaluate(
    context: Context,
    rows: Sequence[Row],
    left_out: Mapping[str, str] | None = None,
    progress: Progress = no_progress,
) -> Evaluation:
    """Evaluate rows on every sample of the test split.

    Args:
        context: may read the test split.
        rows, left_out: from `load_rows`.

    Raises:
        UserError: an output is not finite, or the split has no groups although a metric needs them.
    """
    predictor, split = context.predictor, context.split("test")
    metrics, groups, count = tuple(context.task.metrics), groups_of(split), len(split)
    measuring = {row.name: Measuring(metrics, groups) for row in rows}
    rho: list[Values] = []
    example = split.batch(torch.zeros(1, dtype=torch.int64))
    # matrices: the codes of all draws, float32, and two Δ
    size = rows_within(predictor.model, example, _MEMORY_MB, matrices=2 + context.draws // 2)
    for chunk in row_chunks(count, size):
        batch = split.batch(whole_split(split)[chunk])
        shared = SharedPass(predictor, batch)
        for row in rows:
            output = map_tensors(Tensor.cpu, row.outputs(shared))
            if not is_finite(output):
                raise UserError(f"{row.title!r} gives outputs that are not finite; check the drawn Δ and ρ")
            measuring[row.name].add(output, batch)
        estimate = shared.drawn().rho_N
        if estimate is not None:
            rho.append(estimate.double().cpu().numpy())
        progress(chunk.stop, "")
    return Evaluation(
        figures={name: gathered.figures() for name, gathered in measuring.items()},
        metrics=metrics,
        samples=count,
        titles={row.name: row.title for row in rows},
        groups=None if groups is None else len(torch.unique(groups)),
        rho=np.concatenate(rho) if rho else None,
        left_out=dict(left_out or {}),
        details={row.name: details for row in rows if (details := row.details()) is not None},
    )
