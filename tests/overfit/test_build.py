"""The overfit stage's loop against overfitting all rows at once, with resume, replicas, and failures of both sides."""

import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from ocd_core.errors import UserError
from ocd_core.network.cut import CutModel
from ocd_core.overfit.build import build_store
from ocd_core.overfit.rows import RowBuilder
from ocd_core.overfit.steps import StepPart, overfit
from ocd_core.progress import no_progress
from ocd_core.samples import Condition
from ocd_core.store import OverfitStore, local
from tests.support.arrays import MODEL, ROWS, ArrayTask, Noisy, Rows
from tests.support.params import overfit_params as params


def rows_made(dest: Path, builder: RowBuilder) -> int:
    attributes = {"config": {"overfit": builder.params.model_dump()}}
    return build_store(dest, builder, attributes, "f00d", dest.parent / ".work", no_progress)


def build(dest: Path, builder: RowBuilder) -> OverfitStore:
    """A store that does not exist yet."""
    assert rows_made(dest, builder) == builder.rows
    return OverfitStore(dest)


def arrays_of(store: OverfitStore) -> dict[str, np.ndarray]:
    return {name: store.read(name) for name in store.schema.arrays()}


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_store_holds_what_overfitting_all_rows_at_once_gives(tmp_path: Path, optimizer: str) -> None:
    split, task, p = Rows(), ArrayTask(), params(optimizer=optimizer)
    store = build(tmp_path / "a.zarr", RowBuilder(task, MODEL, split, p, 0))
    assert store.schema.shard_count > 3, "the case must have several shards"
    batch = split.batch(torch.arange(ROWS))
    cut = MODEL.prefix(batch.inputs)
    expected = overfit(MODEL, lambda _step: [StepPart(cut, batch.target)], task.loss, p)
    activation, output = MODEL.forward(cut)
    close = {"rtol": 1e-4, "atol": 1e-9}
    np.testing.assert_allclose(store.read("delta"), expected.delta_NOI.numpy(), **close)
    np.testing.assert_allclose(store.read("rho"), expected.rho_N.numpy(), **close)
    np.testing.assert_allclose(
        store.read("rho"), np.linalg.norm(store.read("delta").astype(float), axis=(1, 2)), **close
    )
    np.testing.assert_allclose(store.read("loss_before"), expected.loss_before_N.numpy(), **close)
    np.testing.assert_allclose(store.read("loss_after"), expected.loss_after_NS.numpy(), **close)
    np.testing.assert_allclose(store.read("layer_input"), cut.layer_input.numpy(), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(store.read("layer_activation"), activation.numpy(), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(store.read("base_output"), output.numpy(), rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(store.read("target"), batch.target.numpy())
    np.testing.assert_array_equal(store.read("sample_id"), np.arange(ROWS))


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_factored_store_gives_the_dense_deltas(tmp_path: Path, optimizer: str) -> None:
    stores = [
        build(
            tmp_path / f"{layout}.zarr",
            RowBuilder(ArrayTask(), MODEL, Rows(), params(optimizer=optimizer, layout=layout), 0),
        )
        for layout in ("dense", "factored")
    ]
    dense, factored = (store.deltas() for store in stores)
    error = np.linalg.norm((factored - dense).reshape(ROWS, -1), axis=1) / np.linalg.norm(
        dense.reshape(ROWS, -1), axis=1
    )
    assert error.max() < 2e-6
    np.testing.assert_allclose(stores[1].read("rho"), stores[0].read("rho"), rtol=1e-6)


def test_resume_keeps_finished_shards_and_gives_the_same_arrays(tmp_path: Path, monkeypatch) -> None:
    whole = arrays_of(build(tmp_path / "whole.zarr", RowBuilder(ArrayTask(), MODEL, Rows(), params(), 0)))

    class Killed(BaseException):
        pass

    class Dies(RowBuilder):
        def fill(self, rows, buffers, progress=no_progress):
            if rows.start >= 3 * self.schema().shard_rows:
                raise Killed
            return super().fill(rows, buffers, progress)

    dest = tmp_path / "resumed.zarr"
    with pytest.raises(Killed):
        build(dest, Dies(ArrayTask(), MODEL, Rows(), params(), 0))
    assert not dest.exists()

    filled = []

    class Counts(RowBuilder):
        def fill(self, rows, buffers, progress=no_progress):
            filled.append(rows.start)
            return super().fill(rows, buffers, progress)

    builder = Counts(ArrayTask(), MODEL, Rows(), params(), 0)
    assert rows_made(dest, builder) == ROWS - 3 * builder.schema().shard_rows
    assert rows_made(dest, builder) == 0
    resumed = arrays_of(OverfitStore(dest))
    assert filled[0] == 3 * builder.schema().shard_rows, "the three finished shards are kept"
    for name, values in whole.items():
        np.testing.assert_array_equal(resumed[name], values, err_msg=name)


def test_replicas_of_a_sample_are_neighbours_with_their_own_inputs(tmp_path: Path) -> None:
    split, p = Rows(20), params(replicas=3)
    store = build(tmp_path / "a.zarr", RowBuilder(Noisy(), MODEL, split, p, 0))
    np.testing.assert_array_equal(store.read("sample_id"), np.repeat(np.arange(20), 3))
    np.testing.assert_array_equal(store.read("replica"), np.tile(np.arange(3), 20))
    # row 7 is sample 2, replica 1
    task, sample, replica = Noisy(), torch.tensor([2]), torch.tensor([1])
    batches = [task.overfit_batch(split, sample, replica, step, 0) for step in range(p.steps + 1)]
    alone = overfit(
        MODEL,
        lambda k: [StepPart(MODEL.prefix(batches[k].inputs), batches[k].target)],
        task.loss,
        p,
        inputs_change=True,
    )
    np.testing.assert_allclose(store.delta(7), alone.delta_NOI[0].numpy(), rtol=1e-4, atol=1e-9)
    # I(x) is of the sample as it is
    np.testing.assert_array_equal(store.read("layer_input")[6], store.read("layer_input")[8])


def test_an_error_of_the_writing_thread_ends_the_stage(tmp_path: Path, monkeypatch) -> None:
    filled = []

    class Counts(RowBuilder):
        def fill(self, rows, buffers, progress=no_progress):
            filled.append(rows.start)
            return super().fill(rows, buffers, progress)

    def full(*_args) -> None:
        assert threading.current_thread() is not threading.main_thread()
        raise UserError("no space left")

    builder = Counts(ArrayTask(), MODEL, Rows(), params(), 0)
    monkeypatch.setattr(local.LocalSink, "write", full)
    with pytest.raises(UserError, match="no space left"):
        build(tmp_path / "a.zarr", builder)
    assert len(filled) == 2, "it ends at the next shard"
    assert not (tmp_path / "a.zarr").exists()
    monkeypatch.undo()
    assert len(build(tmp_path / "a.zarr", builder)) == ROWS  # the locks are free, and it can go on


class InfiniteOutput(ArrayTask):
    """An output that masks a class by -inf, which no network can be trained on."""

    def condition(self, batch, layer_input, activation, output, model=None) -> Condition:
        return Condition(layer_input, activation, output.masked_fill(batch.sample_id[:, None] == 57, -torch.inf))


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
@pytest.mark.parametrize("layout", ["dense", "factored"])
def test_a_delta_that_is_not_finite_never_gets_into_a_store(tmp_path: Path, optimizer: str, layout: str) -> None:
    p = params(optimizer=optimizer, layout=layout, steps=1).model_copy(update={"lr": 1e39})
    with pytest.raises(UserError, match=r"samples is not finite .* lower overfit\.lr"):
        build(tmp_path / "a.zarr", RowBuilder(ArrayTask(), MODEL, Rows(), p, 0))
    assert not (tmp_path / "a.zarr").exists()


def test_a_condition_that_is_not_finite_names_the_sample(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="base_output of sample 57 is not finite"):
        build(tmp_path / "a.zarr", RowBuilder(InfiniteOutput(), MODEL, Rows(), params(), 0))


def test_convolution_with_stride_in_a_store(tmp_path: Path) -> None:
    """Many positions: Δ is the flattened kernel's."""
    with torch.random.fork_rng():
        torch.manual_seed(1)
        net = nn.Sequential(
            nn.Unflatten(1, (1, 5, 6)), nn.Conv2d(1, 3, 3, stride=2), nn.Tanh(), nn.Flatten(), nn.Linear(12, 2)
        ).eval()
    model, split, task = CutModel(net, "1"), Rows(6), ArrayTask()
    store = build(tmp_path / "a.zarr", RowBuilder(task, model, split, params(steps=1), 0))
    for row in range(6):
        weight = net[1].weight.detach().double().requires_grad_(True)
        net64 = torch.nn.Sequential(*(m for m in net)).double()
        out = torch.func.functional_call(net64, {"1.weight": weight}, (split.x[row : row + 1].double(),))
        (gradient,) = torch.autograd.grad(task.loss(out, split.y[row : row + 1].double()).sum(), weight)
        np.testing.assert_allclose(store.delta(row), (-0.05 * gradient).flatten(1).numpy(), rtol=1e-4, atol=1e-8)
        net.float()
