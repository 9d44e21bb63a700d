"""`check_task` names what is broken in I(x), in words for outputs, and in pictures."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from ocd_core.samples import Batch, Condition
from ocd_core.testing import check_task
from tests.testing.broken import Cases, ChangedModel
from tests.testing.good import Good, Net

CASES = Cases()


broken = CASES.broken


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


@broken("reads the target, which is unknown at test time")
class ReadsOneLabel(Good):
    """Which no sample of the checks has, nor a sample without a label."""

    def condition(self, batch: Batch, layer_input: Tensor, activation: Tensor, output: Tensor) -> Condition:
        return super().condition(batch, layer_input, activation, output + (batch.target == 1))


@broken("cannot be cut at any of its layers")
class UsesEachLayerTwice(ChangedModel):
    @staticmethod
    def run(net: Net, x: Tensor) -> object:
        return Net.forward(net, x) + Net.forward(net, 2 * x)


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
    pictures = "tests.testing.test_condition:paint"


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
