import math

import numpy as np
import pytest
import torch
from torch import Tensor

from ocd_core.errors import UserError
from ocd_core.samples import Batch
from ocd_core.tasks.metric import Metric

BATCH = Batch((torch.tensor([1.0, 2.0, 3.0]),), torch.tensor([0.0, 0.0, 4.0]), torch.arange(3))
OUTPUT = torch.tensor([1.0, 5.0, 6.0])


def distance(output: Tensor, target: Tensor) -> Tensor:
    return (output - target).abs()


def largest(output: Tensor, target: Tensor) -> float:
    return float((output - target).max())


def test_a_metric_of_samples_sees_the_target():
    metric = Metric("error", distance, higher_is_better=False)
    assert metric.kind == "per_sample"
    assert metric.measure(OUTPUT, BATCH).tolist() == [1, 5, 2]


def test_a_metric_of_samples_may_see_the_whole_batch():
    def gained(output: Tensor, batch: Batch) -> Tensor:
        return distance(batch.inputs[0], batch.target) - distance(output, batch.target)

    metric = Metric("improvement", gained, higher_is_better=True, sees="batch")
    assert metric.measure(OUTPUT, BATCH).tolist() == [0, -3, -1]


def test_a_metric_of_groups_gives_a_value_for_each_group():
    metric = Metric("largest", per_group=largest, higher_is_better=False)
    assert metric.kind == "per_group"
    found = metric.measure_groups(OUTPUT, BATCH.target, torch.tensor([9, 3, 9]))
    assert found.dtype == torch.float64
    assert found.tolist() == [5, 2]  # group 3, then group 9


def test_a_metric_of_groups_of_tuples():
    metric = Metric("sum", per_group=lambda o, t: float(o[0].sum() + t[1].sum()), higher_is_better=True)
    output, target = (OUTPUT, OUTPUT), (OUTPUT, BATCH.target)
    assert metric.measure_groups(output, target, torch.tensor([0, 1, 1])).tolist() == [1, 15]


def test_a_metric_of_groups_needs_groups():
    metric = Metric("ndcg", per_group=largest, higher_is_better=True)
    with pytest.raises(UserError, match="metric 'ndcg' needs groups of samples, but the split has none"):
        metric.measure_groups(OUTPUT, BATCH.target, None)


def test_a_metric_over_a_split():
    metric = Metric("largest", over_split=largest, higher_is_better=False)
    assert metric.kind == "over_split"
    assert metric.over_split is largest


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "none of them"),
        ({"per_sample": distance, "per_group": largest}, "per_sample and per_group"),
        ({"per_group": largest, "over_split": largest}, "per_group and over_split"),
        ({"per_group": largest, "sees": "batch"}, "sees='batch' is for per_sample, not per_group"),
        ({"over_split": largest, "sees": "draws"}, "sees='draws' is for per_sample, not over_split"),
        ({"per_group": largest, "test": "mcnemar"}, "test='mcnemar' is for per_sample, not per_group"),
        ({"over_split": largest, "finish": np.sqrt}, "leave finish out"),
    ],
)
def test_impossible_metrics_are_refused(given, message):
    with pytest.raises(ValueError, match=f"metric 'm': .*{message}"):
        Metric("m", **given, higher_is_better=True)


def test_a_metric_of_groups_may_be_finished():
    assert Metric("m", per_group=largest, higher_is_better=True, finish=math.sqrt).finish(4.0) == 2
