"""Measure the outputs of every row on the test split in the same way.

The evaluation goes batch by batch: one pass of the base network, then each row's outputs (`ocd_core.evaluation.rows`).
If outputs are scores of classes, or numbers with a metric of distributions, it first goes through the validation
split, for each row's temperature or noise.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ocd_core.errors import UserError
from ocd_core.evaluation.adjusting import Adjustments, choose_adjustments, score_of_draws
from ocd_core.evaluation.answering import Cost, cost_of_answers, with_cost
from ocd_core.evaluation.context import Context
from ocd_core.evaluation.figures import Figure, MeanFigure, Measuring, SplitFigure
from ocd_core.evaluation.noise import Noise
from ocd_core.evaluation.params import EvaluateParams
from ocd_core.evaluation.result import Absent, Result, corrected
from ocd_core.evaluation.row import Row
from ocd_core.evaluation.shared_pass import SharedPass
from ocd_core.evaluation.statistics import Values
from ocd_core.network.moves import row_chunks, rows_within
from ocd_core.progress import Progress, no_progress
from ocd_core.samples import Batch, SplitName, Tensors, groups_of, is_finite, map_tensors, rows_at_once, whole_split
from ocd_core.tasks.base import Metric

BASE, BOUND = "base", "bound"  # the gap between these rows is what others close
_MEMORY_MB = 512

Figures = Mapping[str, Mapping[str, Figure]]  # {row: {metric: figure}}


@dataclass(frozen=True)
class Evaluation:
    """Each row's value of each metric, and ρ of each sample.

    tempered: the same for outputs divided by the row's temperature; widened: of the metrics that see draws, with the
    row's noise; empty if the task has none. samples, groups: how
    many the test split has; groups is None if it has none. titles, chosen_on, costs_as: {row: see `Row`}. absent: rows
    without values. costs: {row: of answering one test sample}. details: see `Row.details`.
    """

    figures: Figures
    metrics: tuple[Metric, ...]
    samples: int
    titles: Mapping[str, str]
    groups: int | None = None
    rho: Values | None = None
    absent: tuple[Absent, ...] = ()
    details: Mapping[str, dict[str, Any]] = field(default_factory=dict)
    temperatures: Mapping[str, float] = field(default_factory=dict)
    tempered: Figures = field(default_factory=dict)
    noise: Mapping[str, float] = field(default_factory=dict)
    widened: Figures = field(default_factory=dict)
    costs: Mapping[str, Cost] = field(default_factory=dict)
    chosen_on: Mapping[str, str] = field(default_factory=dict)
    costs_as: Mapping[str, str] = field(default_factory=dict)

    def gap_closed(self, row: str) -> float | None:
        """(base - row) / (base - bound) of the first metric's mean: 0 is the base, 1 the bound; None without a gap.

        None too if one of the three is not defined, as an AUC is not for answers of one class alone.
        """
        if BOUND not in self.figures:
            return None
        means = {r: self.figures[r][self.metrics[0].name].mean for r in (BASE, row, BOUND)}
        gap = means[BASE] - means[BOUND]
        closed = (means[BASE] - means[row]) / gap if gap else math.nan
        return closed if math.isfinite(closed) else None

    def results(
        self,
        params: EvaluateParams,
        seed: int,
        preset: str = "default",
        cost_flops: Mapping[str, Mapping[str, int]] | None = None,
    ) -> list[Result]:
        """Every row's result of every metric, in the order of the rows, as they are and then adjusted on validation.

        z has the sign of the reported metric: positive if the PSNR is higher. p is corrected over all rows that are
        compared with the base in the same metric.

        Args:
            cost_flops: of trainings, see `FittedRows`.
        """
        cost_flops = cost_flops or {}
        found: list[Result] = []
        none: Mapping[str, float] = {}
        for figures, temperatures, noise in (
            (self.figures, none, none),
            (self.tempered, self.temperatures, none),
            (self.widened, none, self.noise),
        ):
            adjusted = bool(temperatures or noise)
            for m in self.metrics:
                rows = [row for row in figures if m.name in figures[row]]
                # resamples of a metric of the whole split take long, and the table shows them without temperatures
                plain = adjusted and m.kind == "over_split"
                for row in rows:
                    cost = self.costs.get(row)
                    fitting = cost_flops.get(row) or cost_flops.get(self.costs_as.get(row, row)) or {}
                    found.append(
                        Result(
                            row=row,
                            title=self.titles[row],
                            metric=m.name,
                            temperature=temperatures.get(row),
                            noise=noise.get(row),
                            seeds=1,
                            sd_over_seeds=None,
                            n=self.samples,
                            p_holm=None,
                            gap_closed=self.gap_closed(row) if m is self.metrics[0] and not adjusted else None,
                            seconds=None,
                            flops=None if cost is None else cost.flops,
                            fit_flops=fitting.get("total"),
                            preset=preset,
                            chosen_on=self.chosen_on.get(row, ""),
                            **_compare(figures[row][m.name], figures[BASE][m.name], params, seed, plain),
                        )
                    )
        order = {row: place for place, row in enumerate(self.figures)}
        return corrected(sorted(found, key=lambda r: order[r.row]))

    def summary(self) -> dict[str, Any]:
        """{row: {metric: value}} and the number of samples, for `dvc metrics`; without metrics that are not defined."""
        rows = {row: _defined({m.name: figures[m.name] for m in self.metrics}) for row, figures in self.figures.items()}
        for row, temperature in self.temperatures.items():
            first = self.metrics[0].name
            rows[row] |= {"temperature": temperature, **_defined({f"{first}_tempered": self.tempered[row][first]})}
        for row, noise in self.noise.items():
            found = {f"{name}_with_noise": figure for name, figure in self.widened[row].items()}
            rows[row] |= {"noise": noise, **_defined(found)}
        return {"n": self.samples, **rows}

    def per_sample(self) -> list[dict[str, Any]]:
        """One entry per test sample, with every row's per-sample metrics as they are reported (the PSNR of a view).

        And what metrics of the whole split keep of each sample (`Metric.sample_columns`); the first metric after the
        row's temperature, as `<row>_<metric>_tempered`; and metrics that see draws with the row's noise, as
        `<row>_<metric>_with_noise`.
        """
        columns = _sample_columns(self.figures)
        for row, figures in self.figures.items():
            kept = [figure.sample_columns() for figure in figures.values() if isinstance(figure, SplitFigure)]
            columns |= {f"{row}_{name}": values for found in kept for name, values in found.items()}
        first = self.metrics[0].name
        tempered = {row: {first: figures[first]} for row, figures in self.tempered.items() if first in figures}
        columns |= _sample_columns(tempered, "_tempered") | _sample_columns(self.widened, "_with_noise")
        rho = {} if self.rho is None else {"rho": self.rho.tolist()}
        return [
            {"sample_id": i, **{name: column[i] for name, column in (columns | rho).items()}}
            for i in range(self.samples)
        ]


def _sample_columns(every: Figures, end: str = "") -> dict[str, list[float]]:
    """{<row>_<metric><end>: the value of each sample} of the metrics that have one."""
    return {
        f"{row}_{name}{end}": [figure.metric.finish(float(v)) for v in figure.values]
        for row, figures in every.items()
        for name, figure in figures.items()
        if isinstance(figure, MeanFigure) and figure.metric.kind == "per_sample"
    }


def _defined(figures: Mapping[str, Figure]) -> dict[str, float]:
    """The values that are numbers."""
    return {name: figure.value for name, figure in figures.items() if math.isfinite(figure.value)}


def _compare(figure: Figure, base: Figure, params: EvaluateParams, seed: int, plain: bool) -> dict[str, float | None]:
    """The numbers of a result that come from a figure and the base's figure of the same metric.

    plain: without an interval and a comparison.
    """
    names = ("mean", "spread_over_samples", "low", "high", "difference", "difference_low", "difference_high", "z", "p")
    found: dict[str, float | None] = dict.fromkeys(names)
    if not np.isfinite(figure.value):
        return found
    if plain:
        return found | {"mean": figure.value}
    low, high = figure.interval(params.bootstrap, seed)
    found |= {"mean": figure.value, "spread_over_samples": figure.spread, "low": low, "high": high}
    if figure is base or not np.isfinite(base.value):
        return found
    difference = figure.value - base.value
    z = figure.z(base, params.bootstrap, seed)
    low, high = figure.difference(base, params.bootstrap, seed)
    return found | {
        "difference": difference,
        "difference_low": low,
        "difference_high": high,
        "z": -z if z * difference < 0 else z,
        "p": figure.p(base, params.bootstrap, seed),
    }


class _Rows:
    """The rows that are still measured; one that fails is taken out, with the reason.

    costs: of the rows that have answered the whole test split at once.
    """

    def __init__(self, rows: Sequence[Row], test_samples: int) -> None:
        self.running = list(rows)
        self.failed: list[Absent] = []
        self.costs: dict[str, Cost] = {}
        self._test_samples = test_samples

    def answers(self, shared: SharedPass) -> Iterator[tuple[Row, Tensors]]:
        """Each row with its outputs for a batch, on the CPU.

        Raises:
            UserError: the base, with which all are compared, fails.
        """
        for row in list(self.running):
            try:
                output = map_tensors(Tensor.cpu, self._outputs(row, shared))
                if not is_finite(output):
                    raise UserError(f"{row.title!r} gives outputs that are not finite; check the drawn Δ and ρ")
            except UserError as error:
                if row.name == BASE:
                    raise
                self.running.remove(row)
                self.failed.append(Absent(row=row.name, status="failed", why=str(error)))
                continue
            yield row, output

    def _outputs(self, row: Row, shared: SharedPass) -> Tensors:
        if not row.whole_split or shared.split != "test" or row.name in self.costs:
            return row.outputs(shared)
        output, self.costs[row.name] = with_cost(
            lambda: row.outputs(shared), self._test_samples, shared.predictor.device
        )
        return output


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
        progress: called with the number of validation and test samples that are done.

    Raises:
        UserError: the base's outputs are not finite, or the split has no groups although a metric needs them.
    """
    task, split = context.task, context.split("test")
    metrics, groups, count = tuple(task.metrics), groups_of(split), len(split)
    measured = _Rows(rows, count)
    chosen = _adjustments(context, measured, progress)
    done = len(context.split("val"))
    measuring = {row.name: Measuring(metrics, groups) for row in measured.running}
    tempered = {row: Measuring([m for m in metrics if m.sees != "draws"], groups) for row in chosen.temperatures}
    widened = {row: Measuring([m for m in metrics if m.sees == "draws"], groups) for row in chosen.noise}
    rho: list[Values] = []
    for batch, shared in _passes(context, "test", lambda n: progress(done + n, "")):
        noise = Noise(batch.sample_id, context.seed)
        for row, output in measured.answers(shared):
            draws = _draws(context, row, shared)
            measuring[row.name].add(output, batch, draws)
            if row.name in tempered:
                tempered[row.name].add(task.tempered(output, chosen.temperatures[row.name]), batch)
            if row.name in widened:
                several = map_tensors(lambda x: x[None], output) if draws is None else draws
                widened[row.name].add(output, batch, noise.widened(several, chosen.noise[row.name]))
        estimate = shared.drawn().rho_N
        if estimate is not None:
            rho.append(estimate.double().cpu().numpy())
    running = measured.running
    return Evaluation(
        figures={row.name: measuring[row.name].figures() for row in running},
        metrics=metrics,
        samples=count,
        titles={row.name: row.title for row in running},
        groups=None if groups is None else len(torch.unique(groups)),
        rho=np.concatenate(rho) if rho else None,
        absent=(
            *(Absent(row=row, status="left out", why=why) for row, why in (left_out or {}).items()),
            *measured.failed,
        ),
        details={row.name: details for row in running if (details := row.details()) is not None},
        temperatures={row.name: chosen.temperatures[row.name] for row in running if tempered},
        tempered={row.name: tempered[row.name].figures() for row in running if tempered},
        noise={row.name: chosen.noise[row.name] for row in running if widened},
        widened={row.name: widened[row.name].figures() for row in running if widened},
        costs=_costs(context, measured),
        chosen_on={row.name: row.chosen_on for row in running},
        costs_as={row.name: row.training_of(row.variant) or row.family for row in running},
    )


def _passes(
    context: Context, name: SplitName, done: Callable[[int], None] = lambda _count: None
) -> Iterator[tuple[Batch, SharedPass]]:
    """A split batch by batch: with its labels, and as rows see it."""
    split = context.split(name)
    for chunk in row_chunks(len(split), _chunk_rows(context, name)):
        batch = split.batch(whole_split(split)[chunk])
        yield batch, SharedPass(context.predictor, batch, name)
        done(chunk.stop)


def _chunk_rows(context: Context, name: SplitName) -> int:
    # matrices: the codes of all draws, float32, and two Δ
    matrices = 2 + context.draws // 2
    split = context.split(name)
    example = split.batch(torch.zeros(1, dtype=torch.int64))
    return rows_at_once(split, rows_within(context.predictor.model, example, _MEMORY_MB, matrices))


def _adjustments(context: Context, measured: _Rows, progress: Progress) -> Adjustments:
    """Chosen on the validation split, which is answered only if there is something to choose."""
    if not context.has_classes and score_of_draws(context.task) is None:
        return Adjustments()
    answers = (
        (batch, [(row.name, output, _draws(context, row, shared)) for row, output in measured.answers(shared)])
        for batch, shared in _passes(context, "val", lambda n: progress(n, ""))
    )
    return choose_adjustments(context.task, context.has_classes, context.seed, answers)


def _draws(context: Context, row: Row, shared: SharedPass) -> Tensors | None:
    """The outputs of a row's networks, each (K, N, ...) on the CPU, if a metric needs them and there are several."""
    found = None if score_of_draws(context.task) is None else row.distribution(shared)
    return None if found is None else map_tensors(Tensor.cpu, found)


def _costs(context: Context, measured: _Rows) -> dict[str, Cost]:
    batch, _ = next(_passes(context, "test"))
    others = [row for row in measured.running if not row.whole_split]
    return measured.costs | {row.name: cost_of_answers(row, context.predictor, batch) for row in others}
