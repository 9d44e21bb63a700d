"""Figures of the three kinds of metrics, against plain numpy."""

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from ocd_core.errors import UserError
from ocd_core.evaluation.figures import MeanFigure, Measuring, SplitFigure
from ocd_core.evaluation.statistics import bootstrap_interval, difference_interval, mcnemar_p, paired_p, paired_z
from ocd_core.samples import Batch
from ocd_core.tasks.base import Metric

N = 24
OUTPUT = torch.randn(N, generator=torch.Generator().manual_seed(0))
TARGET = (torch.arange(N) % 2).double()
GROUPS = torch.arange(N) // 6


def dcg(relevance: Tensor) -> float:
    return float((relevance / torch.log2(torch.arange(len(relevance)) + 2.0)).sum())


def ndcg(output: Tensor, target: Tensor) -> float:
    """Of one query."""
    return dcg(target[output.argsort(descending=True)]) / dcg(target.sort(descending=True).values)


def f1(output: Tensor, target: Tensor) -> float:
    hits = float(((output > 0) & (target > 0)).sum())
    return 2 * hits / float((output > 0).sum() + (target > 0).sum())


NDCG = Metric("ndcg", per_group=ndcg, higher_is_better=True)
F1 = Metric("f1", over_split=f1, higher_is_better=True)
ERROR = Metric("error", lambda o, t: (o - t) ** 2, higher_is_better=False, finish=lambda v: v**0.5)


def measured(output: Tensor, groups: Tensor | None, *metrics: Metric, size: int = 5) -> dict:
    measuring = Measuring(metrics, groups)
    for rows in torch.split(torch.arange(N), size):
        measuring.add(output[rows], Batch((), TARGET[rows], rows))
    return measuring.figures()


def test_a_mean_over_samples_goes_by_row_without_groups_and_by_group_with_them() -> None:
    values = (OUTPUT.double() - TARGET).square().numpy()
    for groups in (None, GROUPS):
        figure = measured(OUTPUT.double(), groups, ERROR)["error"]
        other = measured(OUTPUT.double() + 0.1 * TARGET, groups, ERROR)["error"]
        by = None if groups is None else groups.numpy()
        assert figure.value == pytest.approx(values.mean() ** 0.5)
        assert figure.mean == pytest.approx(values.mean())
        assert figure.interval(200, 3) == bootstrap_interval(values, 200, 3, lambda v: v**0.5, groups=by)
        assert figure.z(other, 200, 3) == pytest.approx(paired_z(values, other.values, by))


def test_a_metric_of_groups_is_a_mean_over_groups() -> None:
    """NDCG of four queries of six documents: its interval and z come from four values, not from twenty-four."""
    figure = measured(OUTPUT, GROUPS, NDCG)["ndcg"]
    queries = [(OUTPUT[g == GROUPS], TARGET[g == GROUPS]) for g in range(4)]
    values = np.array([ndcg(*query) for query in queries])
    assert figure.value == pytest.approx(values.mean())
    assert isinstance(figure, MeanFigure)
    np.testing.assert_allclose(figure.values, values)
    assert figure.interval(300, 1) == bootstrap_interval(values, 300, 1)
    assert figure.z(measured(TARGET, GROUPS, NDCG)["ndcg"], 300, 1) == pytest.approx(paired_z(values, np.ones(4)))
    spread_by_row = bootstrap_interval(np.repeat(values, 6), 300, 1)
    low, high = figure.interval(300, 1)
    assert high - low > 1.5 * (spread_by_row[1] - spread_by_row[0])
    with pytest.raises(UserError, match="'ndcg' needs groups"):
        measured(OUTPUT, None, NDCG)


def test_a_metric_over_the_split_is_one_figure() -> None:
    figure, better = (measured(output, None, F1)["f1"] for output in (OUTPUT, OUTPUT + TARGET))
    assert isinstance(figure, SplitFigure)
    assert figure.value == pytest.approx(f1(OUTPUT, TARGET))
    low, high = figure.interval(400, 0)
    assert low < figure.value < high
    assert better.z(figure, 400, 0) > 0 > figure.z(better, 400, 0)
    assert better.z(figure, 400, 0) == pytest.approx(-figure.z(better, 400, 0))
    assert figure.z(figure, 400, 0) == 0
    assert figure.interval(400, 0) != measured(OUTPUT, GROUPS, F1)["f1"].interval(400, 0)


def test_a_figure_that_is_defined_nowhere_else_has_a_point_for_an_interval() -> None:
    def only_whole(output: Tensor, _target: Tensor) -> float:
        if len(output.unique()) < N:
            raise ValueError("repeated")
        return 0.5

    figure = measured(OUTPUT, None, Metric("m", over_split=only_whole, higher_is_better=True))["m"]
    assert figure.interval(50, 0) == (0.5, 0.5)
    assert figure.z(figure, 50, 0) == 0


@pytest.mark.parametrize("size", [1, 5, N])
def test_the_size_of_batches_changes_nothing(size: int) -> None:
    whole, parts = (measured(OUTPUT, GROUPS, ERROR, NDCG, F1, size=s) for s in (N, size))
    assert {name: f.value for name, f in whole.items()} == {name: f.value for name, f in parts.items()}


def test_outputs_of_several_tensors() -> None:
    first = Metric("first", over_split=lambda o, t: float((o[0] * t[1]).sum()), higher_is_better=True)
    measuring = Measuring([first], None)
    for rows in torch.split(torch.arange(N), 7):
        measuring.add((OUTPUT[rows], rows), Batch((), (rows, TARGET[rows]), rows))
    assert measuring.figures()["first"].value == pytest.approx(float((OUTPUT * TARGET).sum()))


def test_a_difference_and_its_p_go_by_row_by_group_and_by_resample() -> None:
    other = OUTPUT.double() + 0.3 * TARGET
    for groups in (None, GROUPS):
        a, b = (measured(output, groups, ERROR)["error"] for output in (OUTPUT.double(), other))
        by = None if groups is None else groups.numpy()
        root = lambda v: v**0.5  # noqa: E731
        assert a.difference(b, 200, 3) == difference_interval(a.values, b.values, 200, 3, root, by)
        assert a.p(b, 200, 3) == paired_p(a.values, b.values, by)
    a, b = (measured(output, None, F1)["f1"] for output in (OUTPUT, OUTPUT + 2 * TARGET))
    low, high = a.difference(b, 400, 0)
    assert low < a.value - b.value < high
    assert a.p(b, 400, 0) == pytest.approx(2 * stats.norm.sf(abs(a.z(b, 400, 0))))
    assert a.p(a, 400, 0) == 1
    assert a.difference(a, 400, 0) == (0, 0)


def test_a_metric_that_is_right_or_wrong_is_tested_exactly_but_not_by_group() -> None:
    right = Metric("right", lambda o, t: ((o > 0) == (t > 0)).double(), higher_is_better=True, test="mcnemar")
    a, b = (measured(output, None, right)["right"] for output in (OUTPUT, OUTPUT + TARGET))
    assert a.p(b, 100, 0) == mcnemar_p(a.values, b.values) != paired_p(a.values, b.values)
    a, b = (measured(output, GROUPS, right)["right"] for output in (OUTPUT, OUTPUT + TARGET))
    assert a.p(b, 100, 0) == paired_p(a.values, b.values, GROUPS.numpy())


def test_the_spread_is_that_of_reported_values() -> None:
    figure = measured(OUTPUT.double(), None, ERROR)["error"]
    assert figure.spread == pytest.approx((OUTPUT.double() - TARGET).abs().std().item())
    assert measured(OUTPUT, None, F1)["f1"].spread is None


def test_a_metric_may_be_undefined() -> None:
    def undefined(_output: Tensor, _target: Tensor) -> float:
        raise ValueError("one class")

    assert np.isnan(measured(OUTPUT, None, Metric("auc", over_split=undefined, higher_is_better=True))["auc"].value)


def test_metrics_of_draws_see_them() -> None:
    furthest = Metric(
        "furthest", lambda draws, t: (draws - t).abs().max(0).values, higher_is_better=False, sees="draws"
    )
    measuring = Measuring([furthest, ERROR], None)
    draws = torch.stack([OUTPUT, OUTPUT + 1])
    measuring.add(OUTPUT, Batch((), TARGET, torch.arange(N)), draws)
    found = measuring.figures()
    np.testing.assert_allclose(found["furthest"].values, (draws - TARGET).abs().amax(0))
    np.testing.assert_allclose(found["error"].values, (OUTPUT - TARGET) ** 2)
    alone = measured(OUTPUT, None, furthest)["furthest"]
    np.testing.assert_allclose(alone.values, (OUTPUT - TARGET).abs())
