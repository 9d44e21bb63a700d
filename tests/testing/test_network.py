"""`check_task` names what is broken in a task's network and losses."""

import itertools
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tests.testing.broken import Cases, ChangedModel
from tests.testing.good import Good, Net

CASES = Cases()
OTHERS = itertools.count()


broken = CASES.broken


@broken("must return a torch.nn.Module")
class ModelIsAFunction(Good):
    def build_model(self) -> nn.Module:
        return lambda x: x  # type: ignore[return-value]


@broken("same weights for the same torch.manual_seed")
class NumpyWeights(Good):
    def build_model(self) -> nn.Module:
        net = Net()
        net.last.bias.data[0] = next(OTHERS)
        return net


@broken("no layer that could move")
class NoMatrix(Good):
    def build_model(self) -> nn.Module:
        return nn.Sequential(nn.BatchNorm1d(3))


@broken("must return a tensor or a tuple of tensors, not a list")
class ListOfOutputs(ChangedModel):
    @staticmethod
    def run(net: Net, x: Tensor) -> object:
        return [Net.forward(net, x), x]


@broken(r"output has shape \(2, 5\) for 5 samples")
class SamplesLast(ChangedModel):
    @staticmethod
    def run(net: Net, x: Tensor) -> object:
        return Net.forward(net, x).T


@broken("finite floating point")
class NanOutput(ChangedModel):
    @staticmethod
    def run(net: Net, x: Tensor) -> object:
        return Net.forward(net, x) / 0


@broken("a different output at a second call")
class AlwaysDropout(ChangedModel):
    @staticmethod
    def run(net: Net, x: Tensor) -> object:
        return nn.functional.dropout(Net.forward(net, x), 0.5)


@broken("must also run in float64")
class Float32Constant(ChangedModel):
    @staticmethod
    def run(net: Net, x: Tensor) -> object:
        return Net.forward(net, x) @ torch.eye(2)


@broken("do not cast inside the model")
class CastsToFloat32(ChangedModel):
    @staticmethod
    def run(net: Net, x: Tensor) -> object:
        return Net.forward(net, x).float()


@broken("mixes the samples of a batch")
class MixesSamples(ChangedModel):
    @staticmethod
    def run(net: Net, x: Tensor) -> object:
        return Net.forward(net, x - x.mean(0))


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


@broken("training_loss must give one number per sample")
class MeanTrainingLoss(Good):
    def training_loss(self, output: Tensor, target: Tensor, label_smoothing: float) -> Tensor:
        return self.loss(output, target).mean()


@pytest.mark.parametrize("name", CASES)
def test_a_broken_task_is_refused(name: str, tmp_path: Path) -> None:
    CASES.refused(name, tmp_path)
