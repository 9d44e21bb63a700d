"""Metrics: of a sample, of a group of samples, of a whole split."""

from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from ocd_core.errors import UserError
from ocd_core.samples import Batch, Tensors, map_tensors, rows_by_group, select

MetricKind = Literal["per_sample", "per_group", "over_split"]


@dataclass(frozen=True)
class Metric:
    """A metric of one of three kinds; exactly one of the three functions is given.

    per_sample: (output (N, ...), target (N, ...)) -> (N,), where each value depends only on its sample; the metric is
        the mean over samples. With `sees="batch"` it is called with (output, `Batch`), for metrics that also need the
        inputs, such as the improvement over a mixture. With `sees="draws"` it is called with ((K, N, ...), target): the
        outputs of K networks as a distribution (CRPS, coverage), or K = 1 for a row that gives one answer.
    per_group: (output, target) -> a number for all samples of ONE group (NDCG of a query); the metric is the mean over
        the groups of the split (`ocd_core.samples.groups_of`).
    over_split: (output, target) -> a number for all samples of a split (AUC, F1, MCC). It is computed again for every
        resample of a bootstrap; what each sample alone gives belongs in `reduce`, (output, target) -> (N, ...),
        which runs once: over_split then takes its result instead. If that has columns, (N, D), `sample_columns` names
        the first of them, which tables of samples keep (how sure a network is of each sample).

    higher_is_better is None if neither direction is (the coverage of an interval should be 90 %).

    `finish` turns a mean into the reported number (a square root for RMSE); it must be monotonic. over_split does not
    use it. `unit` is appended to the number in tables. `test` compares two rows: `t` is the paired t-test, `mcnemar`
    McNemar's exact test, for a metric with two values (right or wrong). `about` says what it measures, for readers of
    the report who do not know it.

    A function may return NaN, or over_split raise ValueError, where the metric is not defined (the AUC of one class).

    Raises:
        ValueError: none or several of the three are given, or `sees`, `finish`, `test`, `reduce` or
            `sample_columns` has no effect.
    """

    name: str
    per_sample: Callable[..., Tensor] | None = None
    _: KW_ONLY
    higher_is_better: bool | None
    finish: Callable[[float], float] = float
    unit: str = ""
    decimals: int = 4
    sees: Literal["target", "batch", "draws"] = "target"
    test: Literal["t", "mcnemar"] = "t"
    per_group: Callable[[Any, Any], float] | None = None
    over_split: Callable[..., float] | None = None
    reduce: Callable[[Any, Any], Tensor] | None = None
    sample_columns: tuple[str, ...] = ()
    about: str = ""

    def __post_init__(self) -> None:
        given = [kind for kind in ("per_sample", "per_group", "over_split") if getattr(self, kind) is not None]
        if len(given) != 1:
            raise ValueError(
                f"metric {self.name!r}: give one of per_sample, per_group, over_split, not "
                f"{' and '.join(given) or 'none of them'}"
            )
        if self.sees != "target" and given != ["per_sample"]:
            raise ValueError(f"metric {self.name!r}: sees={self.sees!r} is for per_sample, not {given[0]}")
        if self.test == "mcnemar" and given != ["per_sample"]:
            raise ValueError(f"metric {self.name!r}: test='mcnemar' is for per_sample, not {given[0]}")
        if self.reduce is not None and self.over_split is None:
            raise ValueError(f"metric {self.name!r}: reduce is for over_split, not {given[0]}")
        if self.sample_columns and self.reduce is None:
            raise ValueError(f"metric {self.name!r}: sample_columns names columns of reduce, which is missing")
        if self.over_split is not None and self.finish is not float:
            raise ValueError(f"metric {self.name!r}: over_split gives the reported number; leave finish out")

    @property
    def kind(self) -> MetricKind:
        """The name of the function that is given."""
        if self.per_sample is not None:
            return "per_sample"
        return "over_split" if self.per_group is None else "per_group"

    def measure(self, output: Tensors, batch: Batch, draws: Tensors | None = None) -> Tensor:
        """The values of the samples of a batch, (N,); for a metric of kind per_sample.

        Args:
            draws: the outputs of K networks, each (K, N, ...); None: the output alone, as one.
        """
        assert self.per_sample is not None
        if self.sees == "draws":
            return self.per_sample(map_tensors(lambda x: x[None], output) if draws is None else draws, batch.target)
        return self.per_sample(output, batch if self.sees == "batch" else batch.target)

    def measure_split(self, output: Tensors, target: Tensors) -> float:
        """The value of a whole split; for a metric of kind over_split.

        Raises:
            ValueError: it is not defined.
        """
        assert self.over_split is not None
        if self.reduce is None:
            return float(self.over_split(output, target))
        return float(self.over_split(self.reduce(output, target)))

    def measure_groups(self, output: Tensors, target: Tensors, groups: Tensor | None) -> Tensor:
        """The value of each group by ascending group number, float64 (G,); for a metric of kind per_group.

        Args:
            output, target: all samples of a split.
            groups: the group of each sample, int64 (N,).

        Raises:
            UserError: the split has no groups.
        """
        assert self.per_group is not None
        if groups is None:
            raise UserError(
                f"metric {self.name!r} needs groups of samples, but the split has none: give the split an attribute "
                "groups (int64, one number per row)"
            )
        values = [self.per_group(select(output, rows), select(target, rows)) for rows in rows_by_group(groups)]
        return torch.tensor([float(v) for v in values], dtype=torch.float64)
