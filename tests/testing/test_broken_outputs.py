"""`check_task` names what is broken in what a task makes of outputs, and what only a step of the pipeline shows."""

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from ocd_core.network.training import BaseFit, BaseTraining
from ocd_core.samples import Batch, Condition, Split, SplitName
from ocd_core.tasks.base import Metric
from ocd_core.testing import check_task
from tests.testing.broken import Cases, ChangedModel
from tests.testing.good import Good, Net

CASES = Cases()
broken = CASES.broken


@broken("no mean over the batch")
class MeanLoss(Good):
    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        return (output - target).square().mean()


@broken("keep the dtype of the output")
class Float32Loss(Good):
    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        return super().loss(output, target).float()


@broken("loss is NaN")
class NanLoss(Good):
    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        return super().loss(output, target).neg().log()


@broken("not differentiable")
class CountLoss(Good):
    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        return (output > target).sum(1).to(output.dtype)


@broken("the gradient of loss is NaN")
class NanGradient(Good):
    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        zero = (output - output.detach()).sum(1)
        return super().loss(output, target) + zero.abs().sqrt() * zero


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


@broken("names of their own")
class EqualNames(Good):
    @property
    def metrics(self) -> Sequence[Metric]:
        return (*super().metrics, *super().metrics)


@broken("the names loss and n are taken")
class TakenName(Good):
    @property
    def metrics(self) -> Sequence[Metric]:
        return (Metric("loss", self.loss, higher_is_better=False),)


@broken("metric 'm' must give one number a sample")
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


@broken("metric 'm' is of groups of samples, but the split has none")
class GroupsWithoutGroups(ChangedMetric):
    metric = Metric("m", per_group=lambda o, t: float((o - t).abs().max()), higher_is_better=False)


@broken("metric 'm' depends on the order of the samples")
class FirstOfTheSplit(ChangedMetric):
    metric = Metric("m", over_split=lambda o, t: float(o[0, 0]), higher_is_better=False)


@broken("metric 'm' is NaN")
class NanOfTheSplit(ChangedMetric):
    metric = Metric("m", over_split=lambda o, t: float("nan"), higher_is_better=False)


@broken(r"the train split: groups of a split must be an int64 tensor of shape \(6,\)")
class TooFewGroups(Good):
    def open(self, prepared: Path, split: SplitName) -> Split:
        rows = super().open(prepared, split)
        object.__setattr__(rows, "groups", torch.zeros(2, dtype=torch.int64))
        return rows


@broken(r"predicted_class must be None, or int64 of shape \(5,\)")
class ClassesAreScores(Good):
    def predicted_class(self, output: Tensor) -> Tensor:
        return output


@broken("predicted_class of a sample depends on the other samples")
class ClassOfTheBatch(Good):
    def predicted_class(self, output: Tensor) -> Tensor:
        return (output[:, 0] > output[:, 0].mean()).long()


@broken("training_loss must give one number a sample")
class MeanTrainingLoss(Good):
    def training_loss(self, output: Tensor, target: Tensor, label_smoothing: float) -> Tensor:
        return self.loss(output, target).mean()


# --- what only a step of the pipeline shows


@broken("fit must give the same weights for the same seed")
class UnseededFit(Good):
    def fit(self, fit: BaseFit) -> BaseTraining:
        model = fit.network()
        model.last.bias.data[0] = time.perf_counter_ns() % 1000
        return fit.as_it_is(model)


@broken("fit must return a network like that of build_model")
class FitsAnotherNetwork(Good):
    def fit(self, fit: BaseFit) -> BaseTraining:
        return fit.as_it_is(nn.Linear(3, 2))


@broken("fit returns last.bias trainable, which build_model freezes")
class Thaws(Good):
    def build_model(self) -> nn.Module:
        net = Net()
        net.last.bias.requires_grad_(False)
        return net

    def fit(self, fit: BaseFit) -> BaseTraining:
        return fit.by_gradient(fit.network().requires_grad_(True))


@broken("the stage train_base fails on a few samples: KeyError")
class CannotAugment(Good):
    def training_batch(self, split: Split, sample_id: Tensor, seed: int, epoch: int) -> Batch:
        if len(sample_id) not in (5, 1):  # as often as the checks of batches ask
            raise KeyError("augmentation")
        return split.batch(sample_id)


@broken("the stage evaluate fails on a few samples: ZeroDivisionError")
class CannotCompare(Good):
    def neighbour_features(self, batch: Batch) -> Tensor:
        return batch.inputs[0] / (1 // 0)


@broken("the loss of no sample has a gradient in the selected layer")
class NothingToMove(ChangedModel):
    @staticmethod
    def run(net: Net, x: Tensor) -> object:
        return net.last(torch.relu(net.first(x))) * 0 + x[:, :2]


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


@broken("must be an ocd_core.tasks.Condition")
class ConditionIsATuple(Good):
    def condition(self, batch: Batch, layer_input: Tensor, activation: Tensor, output: Tensor) -> Condition:
        return super().condition(batch, layer_input, activation, output).parts()  # type: ignore[return-value]


@broken(r"base_output must be finite float32 of shape \(N, ...\) for 5 samples, not torch.float64 \(5, 2\)")
class DoubleCondition(Good):
    def condition(self, batch: Batch, layer_input: Tensor, activation: Tensor, output: Tensor) -> Condition:
        return replace(super().condition(batch, layer_input, activation, output), base_output=output.double())


@broken("condition for layer 'first' of a sample depends on the other samples")
class BatchCondition(Good):
    def condition(self, batch: Batch, layer_input: Tensor, activation: Tensor, output: Tensor) -> Condition:
        return super().condition(batch, layer_input, activation - activation.mean(0), output)


@broken("reads the target, which is unknown at test time")
class LeakyCondition(Good):
    def condition(self, batch: Batch, layer_input: Tensor, activation: Tensor, output: Tensor) -> Condition:
        return super().condition(batch, layer_input, activation, output - batch.target)


@broken("cannot be cut at any of its layers")
class UsesEachLayerTwice(ChangedModel):
    @staticmethod
    def run(net: Net, x: Tensor) -> object:
        return Net.forward(net, x) + Net.forward(net, 2 * x)


@broken("stored_target must be a finite tensor")
class StoresOneTarget(Good):
    def stored_target(self, batch: Batch) -> Tensor:
        return batch.target[:1]


@broken("describe_output must return names")
class SaysNothing(Good):
    def describe_output(self, output: Tensor) -> dict[str, str | float]:
        return {}


@broken("read_input must give the model's inputs for one sample")
class ReadsWithoutSampleAxis(Good):
    def read_input(self, path: Path) -> tuple[Tensor, ...]:
        return (super().read_input(path)[0][0],)


@broken("no attribute 'paint'")
class NamesPicturesThatAreNotThere(Good):
    pictures = "tests.testing.test_broken_outputs:paint"


@pytest.mark.parametrize("name", CASES)
def test_a_broken_task_is_refused(name: str, tmp_path: Path) -> None:
    CASES.refused(name, tmp_path)


def test_a_named_layer_must_be_usable(tmp_path: Path) -> None:
    class OneTwice(ChangedModel):
        @staticmethod
        def run(net: Net, x: Tensor) -> object:
            hidden = torch.relu(net.first(x))
            return net.last(hidden) + net.last(-hidden).tanh()

    check_task(OneTwice(), tmp_path / "any")  # another layer can move
    with pytest.raises(AssertionError, match=r"cannot be cut at a layer you named: layer 'last' is used 2 times"):
        check_task(OneTwice(), tmp_path / "named", layers=["first", "last"])
