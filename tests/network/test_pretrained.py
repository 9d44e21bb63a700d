"""Training that starts from published weights: read once, by training alone."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ocd_core.errors import UserError
from ocd_core.network.params import BaseParams
from ocd_core.network.training import fit_base, load_base, seeded_network
from ocd_core.samples import Split, SplitName
from ocd_core.strict import StrictModel
from ocd_core.tasks.base import Metric, Task
from ocd_core.weights import save_weights
from tests.support.arrays import ArraySplit
from tests.support.params import base_params

NOTE = "The last layer was replaced."


class Published(nn.Module):
    """y = first(x) + last(x), whose published `first` is all 7; it counts how often it is read."""

    reads = 0

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(3, 1), nn.Linear(3, 1)
        self.first.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        return (self.first(x) + self.last(x)).squeeze(1)

    def load_pretrained(self) -> list[str]:
        type(self).reads += 1
        with torch.no_grad():
            self.first.weight.fill_(7.0)
        return [NOTE]


class Unreachable(Published):
    def load_pretrained(self) -> list[str]:
        raise UserError("no network")


class Regression(Task):
    def __init__(self, model: type[nn.Module] = Published) -> None:
        super().__init__(StrictModel(), f"{__name__}:{model.__name__}", {})

    def prepare(self, dest: Path) -> dict[str, Any]:
        raise NotImplementedError

    def open(self, prepared: Path, split: SplitName) -> Split:
        raise NotImplementedError

    def loss(self, output: Tensor, target: Tensor) -> Tensor:
        return (output - target) ** 2

    @property
    def metrics(self) -> tuple[Metric, ...]:
        return (Metric("mse", self.loss, higher_is_better=False),)


X = torch.randn(20, 3, generator=torch.Generator().manual_seed(0))
SPLIT = ArraySplit(X, X.sum(1))


def params(**changes: Any) -> BaseParams:
    return base_params(
        f"{__name__}:Published", {}, **({"epochs": 2, "patience": 2, "batch_size": 5, "lr": 0.1} | changes)
    )


@pytest.fixture(autouse=True)
def no_reads_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Published, "reads", 0)


def test_training_starts_from_them_and_says_what_was_replaced() -> None:
    found = fit_base(Regression(), SPLIT, SPLIT, params(), seed=0)
    assert Published.reads == 1
    assert found.notes == (NOTE,)
    assert bool((found.model.first.weight == 7.0).all())
    fresh = fit_base(Regression(), SPLIT, SPLIT, params(lr=1e-12), seed=0).model.last.weight
    torch.testing.assert_close(fresh, start_of_last(), rtol=0, atol=1e-6)


def start_of_last() -> Tensor:
    """What the seed gives `last`, which the published weights do not set."""
    model = seeded_network(Regression(), 0)
    assert isinstance(model, Published)
    return model.last.weight


def test_training_further_does_not_read_them() -> None:
    start = fit_base(Regression(), SPLIT, SPLIT, params(), seed=0).model
    with torch.no_grad():
        start.first.weight.fill_(2.0)
    found = fit_base(Regression(), SPLIT, SPLIT, params(), seed=0, start=start)
    assert Published.reads == 1
    assert found.notes == ()
    assert bool((found.model.first.weight == 2.0).all())


def test_weights_of_a_run_need_no_source(tmp_path: Path) -> None:
    found = fit_base(Regression(), SPLIT, SPLIT, params(), seed=0)
    save_weights(found.model, tmp_path / "w.safetensors")
    task = Regression(Unreachable)
    model = load_base(task, params(checkpoint=str(tmp_path / "w.safetensors")), seed=0)
    assert bool((model.first.weight == 7.0).all())
    with pytest.raises(UserError, match="no network"):
        fit_base(task, SPLIT, SPLIT, params(), seed=0)
