"""`check_task` names what is broken in metrics, ensembles, classes and stored targets."""

from collections.abc import Sequence
from pathlib import Path

import pytest
from torch import Tensor

from ocd_core.samples import Batch
from ocd_core.tasks.base import Metric
from tests.testing.broken import Cases
from tests.testing.good import Good

CASES = Cases()
broken = CASES.broken


@broken("loss of a sample depends on the other samples")
class ContrastiveLoss(Good):
    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        loss = super().loss(output, target)
        return loss / loss.sum()


class ChangedMetric(Good):
    metric: Metric

    @property
    def metrics(self) -> Sequence[Metric]:
        return (self.metric,)


@broken("metrics must be a sequence of Metric")
class NoMetrics(Good):
    metrics = ()


@broken("metrics need different names")
class EqualNames(Good):
    @property
    def metrics(self) -> Sequence[Metric]:
        return (*super().metrics, *super().metrics)


@broken("the names loss and n are taken")
class TakenName(Good):
    @property
    def metrics(self) -> Sequence[Metric]:
        return (Metric("loss", self.loss, higher_is_better=False),)


@broken("metric 'm' must give one number per sample")
class MatrixMetric(ChangedMetric):
    metric = Metric("m", lambda output, target: output - target, higher_is_better=False)


@broken("metric 'm' is NaN")
class NanMetric(ChangedMetric):
    metric = Metric("m", lambda output, target: (output - target).sum(1) / 0, higher_is_better=False)


@broken("metric 'm' of a sample depends on the other samples")
class RankMetric(ChangedMetric):
    metric = Metric("m", lambda output, target: output[:, 0].argsort().argsort().double(), higher_is_better=False)


@broken("metric 'm' of a sample depends on the other samples")
class MixesInLargeBatches(ChangedMetric):
    metric = Metric(
        "m",
        lambda output, target: (output - target).square().sum(1) * (1 + (len(output) > 10) * output.mean().sign()),
        higher_is_better=False,
    )


def against_the_worst(output: Tensor, target: Tensor) -> Tensor:
    """Errors cut at ten times the median: the same as without a cut for the outputs of an untrained network."""
    error = (output - target).square().sum(1)
    return error.clamp(max=float(10 * error.median())) if len(error) > 1 else error


@broken("metric 'm' of a sample depends on the other samples")
class CutsOutliersOfTheBatch(ChangedMetric):
    metric = Metric("m", against_the_worst, higher_is_better=False)


@broken("metric 'm' needs groups of samples, but the split has none")
class GroupsWithoutGroups(ChangedMetric):
    metric = Metric("m", per_group=lambda o, t: float((o - t).abs().max()), higher_is_better=False)


@broken("metric 'm' depends on the order of the samples")
class FirstOfTheSplit(ChangedMetric):
    metric = Metric("m", over_split=lambda o, t: float(o[0, 0]), higher_is_better=False)


@broken("metric 'm' is NaN")
class NanOfTheSplit(ChangedMetric):
    metric = Metric("m", over_split=lambda o, t: float("nan"), higher_is_better=False)


@broken(r"predicted_class must be None, or int64 of shape \(5,\)")
class ClassesAreScores(Good):
    def predicted_class(self, output: Tensor) -> Tensor:
        return output


@broken("predicted_class of a sample depends on the other samples")
class ClassOfTheBatch(Good):
    def predicted_class(self, output: Tensor) -> Tensor:
        return (output[:, 0] > output[:, 0].mean()).long()


@broken(r"log_probabilities must be None, or finite and of shape \(5, classes\)")
class OneProbability(Good):
    def log_probabilities(self, output: Tensor) -> Tensor:
        return -output[:, 0].square()


@broken("logarithms of probabilities that add up to 1 for each sample")
class Logits(Good):
    def log_probabilities(self, output: Tensor) -> Tensor:
        return output


@broken("log_probabilities of a sample depend on the other samples")
class ProbabilitiesOfTheBatch(Good):
    def log_probabilities(self, output: Tensor) -> Tensor:
        return (output - output.mean(0)).log_softmax(1)


@broken("finish of metric 'm' must be monotonic")
class PeriodicFinish(ChangedMetric):
    metric = Metric(
        "m", lambda output, target: (output - target).square().sum(1), higher_is_better=False, finish=lambda x: 1.0
    )


@broken(r"combine must turn outputs of shape \(K, \*\(5, 2\)\)")
class CombinesToOne(Good):
    def combine(self, outputs_KN: Tensor) -> Tensor:
        return outputs_KN.mean((0, 1))


@broken("must score as one of them")
class SumsOutputs(Good):
    def combine(self, outputs_KN: Tensor) -> Tensor:
        return outputs_KN.sum(0)


@broken("must not depend on the order of the networks")
class TakesTheFirst(Good):
    def combine(self, outputs_KN: Tensor) -> Tensor:
        return outputs_KN[0]


@broken("stored_target must be a finite tensor")
class StoresOneTarget(Good):
    def stored_target(self, batch: Batch) -> Tensor:
        return batch.target[:1]


@broken("stored_target must be real")
class StoresComplexNumbers(Good):
    def stored_target(self, batch: Batch) -> Tensor:
        return batch.target + 1j


@pytest.mark.parametrize("name", CASES)
def test_a_broken_task_is_refused(name: str, tmp_path: Path) -> None:
    CASES.refused(name, tmp_path)
