"""The end-to-end hypernetwork where the best Δ is a known function of I(x)."""

import torch
from torch import Tensor, nn

from ocd_core.artifacts import Artifacts
from ocd_core.codes.representations.factored import Factored
from ocd_core.evaluation.rows.hypernetwork import Hypernetwork, HypernetworkParams, train_hypernetwork
from ocd_core.evaluation.space import DeltaSpace
from ocd_core.network.cut import CutModel
from ocd_core.network.moves import base_pass
from ocd_core.samples import Batch, Samples, whole_split
from ocd_core.tasks.base import Metric
from tests.support.arrays import ArrayTask
from tests.support.runs import assert_same_outputs, moved_by_hand, row_of

PARAMS = HypernetworkParams(width=16, updates=200, batch_size=16, lr=1e-2, validate_every=50, patience=10)


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


def samples(task: ArrayTask, model: CutModel, split: Points) -> Samples:
    return Samples(split, base_pass(task, model, split.batch(whole_split(split))).condition)


def train(seed: int = 0, params: HypernetworkParams = PARAMS):
    task = Squares()
    model = CutModel(Net(), "layer", "float32")
    space = DeltaSpace(Factored(2, 3, unit_variance=False))
    parts = [samples(task, model, Points(n, s)) for n, s in ((96, 1), (32, 2))]
    return task, model, space, parts[1], train_hypernetwork(task, model, space, 1.0, *parts, params, seed)


def test_it_learns_from_the_loss_alone_on_held_out_samples() -> None:
    task, model, space, val, found = train()
    batch = val.split.batch(whole_split(val.split))
    plain = task.loss(torch.zeros_like(batch.target), batch.target).mean().item()
    assert abs(found.metrics["val_loss_before"] - plain) < 1e-5 * plain  # it starts as the base network
    assert found.metrics["val_loss"] < 0.25 * plain
    # the reported loss is that of Δ applied by hand, a sample at a time
    losses = []
    for i in range(len(batch)):
        code = found.network(val.condition.select(slice(i, i + 1)))
        delta = space.representation.decode(code, torch.ones(1), batch.inputs[0][i : i + 1])[0]
        losses.append(task.loss((delta @ batch.inputs[0][i])[None], batch.target[i : i + 1]).item())
    assert abs(sum(losses) / len(losses) - found.metrics["val_loss"]) < 1e-4 * plain
    assert model.weight_OI.abs().max() == 0


def test_it_repeats_bit_for_bit_and_depends_on_the_seed() -> None:
    first, again, other = (train(seed)[-1].network.state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(first[k], again[k]) for k in first)
    assert not all(torch.equal(first[k], other[k]) for k in first)


def test_where_training_only_hurts_it_stays_the_base_network() -> None:
    *_, val, found = train(params=PARAMS.model_copy(update={"lr": 30.0, "updates": 6, "validate_every": 3}))
    assert min(row["val_loss"] for row in found.curve) > found.metrics["val_loss_before"] == found.metrics["val_loss"]
    assert found.metrics["best_update"] == 0
    assert found.network(val.condition).abs().max() == 0


def test_answers_are_in_units_of_the_scale() -> None:
    network = train()[-1].network
    assert isinstance(network, Hypernetwork)
    cond = train()[3].condition
    before = network(cond)
    network.scale.fill_(3.0)
    torch.testing.assert_close(network(cond), 3 * before)


def test_the_row_moves_the_layer_by_its_delta(run: Artifacts) -> None:
    row, shared = row_of(run, "hypernetwork")
    base = shared.base
    ones = torch.ones(len(shared)) if row.space.representation.uses_scale else None
    deltas = row.space.representation.decode(row.network(base.condition), ones, base.cut.layer_input_NI)
    assert_same_outputs(row.outputs(shared), moved_by_hand(shared.predictor, shared.batch, deltas))
