"""`check_task` names what only a step of the pipeline shows."""

import itertools
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from ocd_core.evaluation.rows import ROWS, row_class
from ocd_core.network.training import BaseFit, BaseTraining
from ocd_core.samples import Batch, Split
from tests.testing.broken import Cases, ChangedModel
from tests.testing.good import Good, Net

CASES = Cases()
OTHERS = itertools.count()


broken = CASES.broken


@broken("fit must give the same weights for the same seed")
class UnseededFit(Good):
    def fit(self, fit: BaseFit) -> BaseTraining:
        model = fit.network()
        model.last.bias.data[0] = next(OTHERS)
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


@pytest.mark.parametrize("name", CASES)
def test_a_broken_task_is_refused(name: str, tmp_path: Path) -> None:
    CASES.refused(name, tmp_path)


@pytest.mark.parametrize("name", ROWS.own())
def test_every_row_can_be_rehearsed(name: str) -> None:
    row = row_class(name)
    if row.Params is not None:
        row.Params.model_validate(dict(row.quick))
