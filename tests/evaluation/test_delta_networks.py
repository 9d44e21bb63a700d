"""Hypernetworks where the best Δ is a known function of I(x): from the loss alone, and from Δ alone."""

import pytest
import torch
from torch import Tensor, nn

from ocd_core.codes.representations.factored import Factored
from ocd_core.evaluation.delta_networks import (
    Hypernetwork,
    HypernetworkMoves,
    RegressionLoss,
    TrainingParams,
    run_phase,
)
from ocd_core.evaluation.space import DeltaSpace
from ocd_core.network.cut import CutModel
from ocd_core.network.moved_loss import MovedLoss
from ocd_core.network.moves import base_pass
from ocd_core.rng import torch_generator
from ocd_core.samples import Batch, Samples, whole_split
from ocd_core.tasks.base import Metric
from tests.support.arrays import ArrayTask

PARAMS = TrainingParams.model_validate({
    "widths": [16], "updates": 200, "batch_size": 16, "lrs": [1e-2], "ema": 0.0, "validate_every": 50, "patience": 10,
})  # fmt: skip


class Net(nn.Module):
    """x -> 0: the layer does nothing yet."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 2)
        nn.init.zeros_(self.layer.weight)
        nn.init.zeros_(self.layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


class Squares(ArrayTask):
    """Target: the squares of two inputs, which no single linear layer gives but a Δ for each x does."""

    @property
    def metrics(self):
        return [Metric("mse", self.loss, higher_is_better=False)]


class Points:
    def __init__(self, count: int, seed: int) -> None:
        self.x = torch.randn(count, 3, generator=torch.Generator().manual_seed(seed))

    def __len__(self) -> int:
        return len(self.x)

    def batch(self, sample_id: Tensor) -> Batch:
        x = self.x[sample_id]
        return Batch((x,), x[:, :2].square(), sample_id)


TASK, MODEL, SPACE = Squares(), CutModel(Net(), "layer", "float32"), DeltaSpace(Factored(2, 3, unit_variance=False))


def samples(count: int, seed: int) -> Samples:
    split = Points(count, seed)
    return Samples(split, base_pass(TASK, MODEL, split.batch(whole_split(split))).condition)


TRAIN, VAL = samples(96, 1), samples(32, 2)


def fresh(seed: int = 0, width: int = 16) -> Hypernetwork:
    return Hypernetwork.fresh(TRAIN.condition, width, SPACE.size, 1.0, seed)


def end_to_end(seed: int = 0, params: TrainingParams = PARAMS):
    network = fresh(seed)
    moved = MovedLoss(
        TASK, MODEL, HypernetworkMoves(network, SPACE), TRAIN, VAL, params.batch_size, seed, "hypernetwork"
    )
    return network, run_phase(network, moved, params.settings(), params.lrs, seed)


def test_it_learns_from_the_loss_alone_on_held_out_samples() -> None:
    network, phase = end_to_end()
    batch = VAL.split.batch(whole_split(VAL.split))
    plain = TASK.loss(torch.zeros_like(batch.target), batch.target).mean().item()
    found = phase.tried.metrics()
    assert abs(found["val_loss_before"] - plain) < 1e-5 * plain  # it starts as the base network
    assert found["val_loss"] < 0.25 * plain
    # the reported loss is that of Δ applied by hand, a sample at a time
    losses = []
    for i in range(len(batch)):
        code = network(VAL.condition.select(slice(i, i + 1)))
        delta = SPACE.representation.decode(code, torch.ones(1), batch.inputs[0][i : i + 1])[0]
        losses.append(TASK.loss((delta @ batch.inputs[0][i])[None], batch.target[i : i + 1]).item())
    assert abs(sum(losses) / len(losses) - found["val_loss"]) < 1e-4 * plain
    assert MODEL.weight_OI.abs().max() == 0


def test_updates_are_those_of_a_plain_loop() -> None:
    """Without an average: torch's Adam on the loss of the same batches, written out."""
    short = PARAMS.model_copy(update={"updates": 6, "validate_every": 6})
    network, _ = end_to_end(params=short)
    mine = fresh()
    adam = torch.optim.Adam(mine.parameters(), lr=1e-2)
    for update in range(6):
        ids = torch.randint(96, (16,), generator=torch_generator(0, "hypernetwork update", update))
        x = TRAIN.split.x[ids]
        u = mine(TRAIN.condition.select(ids)) * x.norm(dim=1, keepdim=True)  # Δ x of û ⊗ x / ‖x‖
        adam.zero_grad()
        (u - x[:, :2].square()).square().mean().backward()
        adam.step()
    for a, b in zip(network.parameters(), mine.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_it_repeats_bit_for_bit_and_depends_on_the_seed() -> None:
    first, again, other = (end_to_end(seed)[0].state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(first[k], again[k]) for k in first)
    assert not all(torch.equal(first[k], other[k]) for k in first)


def test_where_training_only_hurts_it_stays_the_base_network() -> None:
    network, phase = end_to_end(params=PARAMS.model_copy(update={"lrs": [30.0], "updates": 6, "validate_every": 3}))
    assert phase.tried.best.best_update == 0
    assert min(row["val_loss"] for row in phase.tried.curve[1:]) > phase.tried.start_loss
    assert network(VAL.condition).abs().max() == 0


def test_answers_are_in_units_of_the_scale() -> None:
    network, _ = end_to_end()
    before = network(VAL.condition)
    network.scale.fill_(3.0)
    torch.testing.assert_close(network(VAL.condition), 3 * before)


def test_regression_is_the_squared_error_of_coordinates_in_units_of_the_scale() -> None:
    network = fresh()
    network.scale.fill_(2.0)
    codes, val_codes = (s.split.x[:, :2] * s.split.x[:, 2:] for s in (TRAIN, VAL))
    loss = RegressionLoss(network, TRAIN.condition, codes, VAL.condition, val_codes, 8, 3)
    assert loss.validate()["val_loss"] == pytest.approx(float((val_codes / 2).square().mean()))
    ids = torch.randint(96, (8,), generator=torch_generator(3, "regression update", 5))
    parts = sum(float(loss.loss(5, part, 3).detach()) for part in range(3))
    assert parts == pytest.approx(float((codes[ids] / 2).square().mean()), rel=1e-5)
    before = loss.validate()["val_loss"]
    phase = run_phase(network, loss, PARAMS.settings(), PARAMS.lrs, 0)
    assert phase.tried.best.best_loss < 0.2 * before
    gap = network(VAL.condition) - val_codes
    assert phase.tried.best.best_loss == pytest.approx(float((gap / 2).square().mean()), rel=1e-4)
