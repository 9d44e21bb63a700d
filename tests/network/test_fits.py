"""A network is tried on the first samples: shapes, the loss, and whether samples are kept apart."""

import pytest
import torch
from torch import Tensor, nn

from ocd_core.errors import UserError
from ocd_core.network.fits import check_fits
from ocd_core.samples import Batch
from tests.support.toy import ToyData, ToyTask


class Centred(nn.Module):
    """Points of the plane -> two logits, less the batch's mean."""

    def __init__(self, inputs: int = 2) -> None:
        super().__init__()
        self.layer = nn.Linear(inputs, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x.flatten(1) - x.flatten(1).mean(0))


class Rows:
    """Point sets with two targets."""

    def __init__(self, count: int, target: float = 0.0) -> None:
        self.x = torch.randn(count, 3, 4, generator=torch.Generator().manual_seed(0))
        self.y = torch.full((count, 2), target)

    def __len__(self) -> int:
        return len(self.x)

    def batch(self, sample_id: Tensor) -> Batch:
        return Batch((self.x[sample_id],), self.y[sample_id], sample_id)


TASK = ToyTask(ToyData(noise=0.0), "tests.support.toy:PointSet", {"width": 6})


@pytest.mark.parametrize("count", [1, 2, 5])
def test_a_network_that_fits(count: int) -> None:
    network = TASK.build_model().train()
    check_fits(TASK, network, Rows(count))
    assert not network.training
    assert all(p.grad is None for p in network.parameters())


@pytest.mark.parametrize(
    ("network", "rows", "message"),
    [
        (
            nn.Linear(5, 2),
            Rows(4),
            r"^the network of base.model does not fit the data \(inputs \(2, 3, 4\)\)",
        ),
        (nn.Sequential(nn.Flatten(), nn.Linear(12, 3)), Rows(4), "does not fit the data"),
        (Centred(12), Rows(4), "^base.model: the model mixes the samples of a batch"),
        (TASK.build_model(), Rows(2, float("nan")), r"^the loss of 2 samples is \[nan, nan\]"),
    ],
)
def test_what_cannot_be_used(network: nn.Module, rows: Rows, message: str) -> None:
    with pytest.raises(UserError, match=message):
        check_fits(TASK, network, rows)


def test_a_shortage_of_memory_is_no_fault_of_the_network() -> None:
    class Large(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            raise torch.OutOfMemoryError("out of memory")

    with pytest.raises(torch.OutOfMemoryError):
        check_fits(TASK, Large(), Rows(2))
