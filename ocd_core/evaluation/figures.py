"""One row's value of one metric, with its interval and a comparison with another row's.

Dims: N samples, G groups, R resamples.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from ocd_core.evaluation.statistics import (
    Groups,
    Values,
    bootstrap_interval,
    difference_interval,
    mcnemar_p,
    paired_p,
    paired_z,
    percentiles,
    recomputed,
    recomputed_z,
)
from ocd_core.samples import Batch, Tensors, as_tuple, concatenate, select
from ocd_core.tasks.base import Metric


class Figure(ABC):
    """A row's value of a metric. mean: before `Metric.finish`; shares of a gap are computed from it.

    It is NaN where the metric is not defined.
    """

    def __init__(self, metric: Metric, mean: float) -> None:
        self.metric, self.mean = metric, mean

    @property
    def value(self) -> float:
        """The reported number."""
        return self.metric.finish(self.mean)

    @abstractmethod
    def interval(self, resamples: int, seed: int) -> tuple[float, float]:
        """The 95 % bootstrap interval of `value`."""

    @property
    def spread(self) -> float | None:
        """The standard deviation over samples (or groups) of the reported values; None if there are none."""
        return None

    @abstractmethod
    def z(self, reference: "Figure", resamples: int, seed: int) -> float:
        """The paired difference from another row's value, divided by its standard error."""

    @abstractmethod
    def difference(self, reference: "Figure", resamples: int, seed: int) -> tuple[float, float]:
        """The 95 % bootstrap interval of the paired difference of `value` from another row's."""

    @abstractmethod
    def p(self, reference: "Figure", resamples: int, seed: int) -> float:
        """How probable a difference as large as this one, or larger, is by chance (two-sided)."""


class MeanFigure(Figure):
    """A mean over samples or over groups.

    Args:
        values: one per sample, float64 (N,), or one per group, (G,).
        groups: the group of each value, (N,), if samples are resampled by group.
    """

    def __init__(self, metric: Metric, values: Values, groups: Groups | None = None) -> None:
        super().__init__(metric, float(values.mean()))
        self.values, self.groups = values, groups

    def interval(self, resamples: int, seed: int) -> tuple[float, float]:
        """See `bootstrap_interval`."""
        return bootstrap_interval(self.values, resamples, seed, self.metric.finish, groups=self.groups)

    def z(self, reference: Figure, resamples: int, seed: int) -> float:
        """See `paired_z`."""
        assert isinstance(reference, MeanFigure)
        return paired_z(self.values, reference.values, self.groups)

    @property
    def spread(self) -> float | None:
        """Of each sample's value as it is reported (the PSNR of a view)."""
        if len(self.values) < 2:
            return None
        return float(np.std([self.metric.finish(float(v)) for v in self.values], ddof=1))

    def difference(self, reference: Figure, resamples: int, seed: int) -> tuple[float, float]:
        """See `difference_interval`."""
        assert isinstance(reference, MeanFigure)
        return difference_interval(
            self.values, reference.values, resamples, seed, self.metric.finish, groups=self.groups
        )

    def p(self, reference: Figure, resamples: int, seed: int) -> float:
        """McNemar's exact test if the metric says so, the paired t-test otherwise and wherever there are groups."""
        assert isinstance(reference, MeanFigure)
        if self.metric.test == "mcnemar" and self.groups is None:
            return mcnemar_p(self.values, reference.values)
        return paired_p(self.values, reference.values, self.groups)


class SplitFigure(Figure):
    """A metric of a whole split (AUC, F1), computed again on each resample.

    Args:
        output, target: of all samples.
        groups: the group of each sample, int64 (N,), or None.
    """

    def __init__(self, metric: Metric, output: Tensors, target: Tensors, groups: Tensor | None = None) -> None:
        self._count, self._groups = len(as_tuple(target)[0]), groups
        self._found: dict[tuple[int, int], Values] = {}
        assert metric.over_split is not None
        self._function = metric.over_split
        self._parts = (output, target) if metric.reduce is None else (metric.reduce(output, target),)
        super().__init__(metric, self._measure_whole())

    def sample_columns(self) -> dict[str, list[float]]:
        """What `Metric.sample_columns` names, of each sample."""
        names = self.metric.sample_columns
        return {name: as_tuple(self._parts[0])[0][:, i].tolist() for i, name in enumerate(names)}

    def interval(self, resamples: int, seed: int) -> tuple[float, float]:
        """The interval over the resamples on which the metric is defined."""
        found_R = self._recomputed(resamples, seed)
        found_R = found_R[np.isfinite(found_R)]
        return percentiles(found_R) if len(found_R) > 1 else (self.value, self.value)

    def z(self, reference: Figure, resamples: int, seed: int) -> float:
        """See `recomputed_z`."""
        assert isinstance(reference, SplitFigure)
        both = self._recomputed(resamples, seed), reference._recomputed(resamples, seed)
        return recomputed_z(self.mean - reference.mean, *both)

    def difference(self, reference: Figure, resamples: int, seed: int) -> tuple[float, float]:
        """Over the resamples on which both rows have the metric."""
        assert isinstance(reference, SplitFigure)
        found_R = self._recomputed(resamples, seed) - reference._recomputed(resamples, seed)
        found_R = found_R[np.isfinite(found_R)]
        value = self.value - reference.value
        return percentiles(found_R) if len(found_R) > 1 else (value, value)

    def p(self, reference: Figure, resamples: int, seed: int) -> float:
        """Of z, under the normal distribution."""
        from scipy.stats import norm

        return float(2 * norm.sf(abs(self.z(reference, resamples, seed))))

    def _recomputed(self, resamples: int, seed: int) -> Values:
        key = resamples, seed
        if key not in self._found:
            self._found[key] = recomputed(self._measure, self._count, self._groups, resamples, seed)
        return self._found[key]

    def _measure(self, rows: Tensor | slice) -> float:
        return float(self._function(*(select(part, rows) for part in self._parts)))

    def _measure_whole(self) -> float:
        try:
            return self._measure(slice(None))
        except ValueError:  # not defined
            return np.nan


class Measuring:
    """Collects one row's outputs batch by batch, as the metrics need them.

    Args:
        metrics: of the task.
        groups: of the split, int64 (N,), or None.
    """

    def __init__(self, metrics: Sequence[Metric], groups: Tensor | None) -> None:
        self._metrics, self._groups = metrics, groups
        self._values: dict[str, list[Tensor]] = {m.name: [] for m in metrics if m.kind == "per_sample"}
        self._whole = any(m.kind != "per_sample" for m in metrics)
        self._outputs: list[Tensors] = []
        self._targets: list[Tensors] = []

    def add(self, output: Tensors, batch: Batch, draws: Tensors | None = None) -> None:
        """Add the outputs of the next batch, all on the CPU; draws: of the networks behind the output, (K, N, ...)."""
        for metric in self._metrics:
            if metric.kind == "per_sample":
                self._values[metric.name].append(metric.measure(output, batch, draws).double())
        if self._whole:
            self._outputs.append(output)
            self._targets.append(batch.target)

    def figures(self) -> dict[str, Figure]:
        """The figure of each metric over all batches."""
        output, target = (concatenate(parts) if parts else () for parts in (self._outputs, self._targets))
        return {metric.name: self._figure(metric, output, target) for metric in self._metrics}

    def _figure(self, metric: Metric, output: Tensors, target: Tensors) -> Figure:
        if metric.kind == "per_sample":
            groups = None if self._groups is None else self._groups.numpy()
            return MeanFigure(metric, torch.cat(self._values[metric.name]).numpy(), groups)
        if metric.kind == "per_group":
            return MeanFigure(metric, metric.measure_groups(output, target, self._groups).numpy())
        return SplitFigure(metric, output, target, self._groups)
