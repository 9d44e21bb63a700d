"""Rows of a store: a shard is a function of its rows alone, in batches that keep within the memory."""

import threading
import time

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ocd_core.errors import UserError
from ocd_core.network.cut import CutModel
from ocd_core.network.moves import fitting_rows, rows_within
from ocd_core.overfit.rows import RowBuilder
from ocd_core.samples import Batch, Condition
from tests.support.arrays import MODEL, WIDE, ArraySplit, ArrayTask, Noisy, OtherCondition, Rows
from tests.support.params import overfit_params as params
from tests.support.params import refine_params


def test_batches_keep_within_the_memory() -> None:
    """On a CPU the cache caps them too, so a wide network is needed to see the bound."""
    split = Rows(1)
    example = split.batch(torch.tensor([0]))
    one = rows_within(MODEL, example, 1, matrices=6)
    assert one * 6 * WIDE * 40 * 8 <= 2**20, "six float64 matrices a row within 1 MiB"
    assert rows_within(MODEL, example, 4, matrices=6) // one in (3, 4, 5)
    assert rows_within(MODEL, example, 1e-6, matrices=6) == 1
    large_memory = fitting_rows(MODEL, example, 2**20, matrices=6)
    assert large_memory.rows < large_memory.in_memory, "the cache holds fewer than the memory"
    assert large_memory.in_memory * 6 * WIDE * 40 * 8 <= 2**40
    small, large = (RowBuilder(Noisy(), MODEL, split, params(memory_mb=m), 0) for m in (8, 64))
    assert small.batch_rows < large.batch_rows


def test_shards_are_smaller_where_memory_is_short() -> None:
    """Three shards alive and a batch fit memory_mb."""
    for memory_mb in (1, 2, 8, 64):
        builder = RowBuilder(ArrayTask(), MODEL, Rows(), params(memory_mb=memory_mb), 0)
        buffers = builder.buffers(builder.schema())
        assert 3 * sum(b.nbytes for b in buffers.values()) <= memory_mb * 2**20 / 2 + 3 * 2**16


def test_factored_is_refused_where_the_condition_is_not_the_layers_input() -> None:
    builder = RowBuilder(OtherCondition(), MODEL, Rows(), params(layout="factored"), 0)
    with pytest.raises(UserError, match=r"layout: factored rebuilds Δ from the stored i_L"):
        builder.schema()
    RowBuilder(OtherCondition(), MODEL, Rows(), params(), 0).schema()


class Clamps(ArrayTask):
    """Keeps i_L within what the first sample has."""

    def condition(self, batch, layer_input, activation, output, model=None) -> Condition:
        return Condition(layer_input.clamp(max=self.largest), activation, output)

    largest = float(MODEL.prefix(Rows().batch(torch.tensor([0])).inputs).x_NPI.max())


def test_factored_is_refused_where_the_condition_changes_the_input_of_a_later_sample() -> None:
    builder = RowBuilder(Clamps(), MODEL, Rows(), params(layout="factored"), 0)
    schema = builder.schema()
    with pytest.raises(UserError, match=r"layout: factored rebuilds Δ from the stored i_L"):
        builder.fill(slice(0, 6), builder.buffers(schema))


def test_factored_is_refused_where_inputs_change() -> None:
    with pytest.raises(UserError, match="not exact if each step sees different inputs"):
        RowBuilder(Noisy(), MODEL, Rows(), params(layout="factored"), 0)


@pytest.mark.parametrize("task", [ArrayTask(), Noisy()])
def test_rows_are_a_function_of_themselves_alone(task) -> None:
    """Whatever is computed with them, and in whichever buffers."""
    builder = RowBuilder(task, MODEL, Rows(12), params(replicas=2), 0)
    schema = builder.schema()
    shard = schema.shard_slice(0)
    whole = {k: v.copy() for k, v in builder.fill(shard, builder.buffers(schema)).items()}
    assert set(whole) == set(schema.arrays())
    builder.batch_rows = 2
    dirty = builder.buffers(schema)
    for buffer in dirty.values():
        buffer.fill(7)
    part = builder.fill(slice(2, 5), dirty)
    for name, values in part.items():
        np.testing.assert_allclose(values, whole[name][2:5], rtol=1e-4, atol=1e-8, err_msg=name)


def test_rows_are_samples_and_their_replicas() -> None:
    builder = RowBuilder(Noisy(), MODEL, Rows(4), params(replicas=3), 0)
    sample_id, replica = builder.ids()
    assert list(zip(sample_id.tolist(), replica.tolist(), strict=True)) == [(s, r) for s in range(4) for r in range(3)]
    filled = builder.fill(slice(5, 8), builder.buffers(builder.schema()))
    assert filled["sample_id"].tolist() == [1, 2, 2]
    assert filled["replica"].tolist() == [2, 0, 1]
    np.testing.assert_array_equal(filled["target"], Rows(4).y[[1, 2, 2]])


def test_progress_counts_rows() -> None:
    seen = []
    builder = RowBuilder(Noisy(), MODEL, Rows(9), params(), 0)
    builder.batch_rows = 3
    builder.fill(slice(2, 9), builder.buffers(builder.schema()), lambda done, _note: seen.append(done))
    assert seen == [5, 8, 9]


class Digits(ArrayTask):
    """The larger of two outputs is the class."""

    def predicted_class(self, output: Tensor) -> Tensor:
        return output.argmax(1)


class Threshold(ArrayTask):
    """The first output's sign is the class: the stored outputs are no class scores."""

    def predicted_class(self, output: Tensor) -> Tensor:
        return (output[:, 0] > 0).long()


@pytest.mark.parametrize(("task", "classes"), [(ArrayTask, None), (Digits, 2), (Threshold, None)])
def test_whether_the_stored_outputs_are_class_scores(task, classes) -> None:
    assert RowBuilder(task(), MODEL, Rows(), params(), 0).classes() == classes


def test_samples_that_are_sorted_do_not_make_class_scores() -> None:
    """Of the first forty, the sign gives the class that has the larger score."""
    rows = Rows(400)
    output = MODEL.network(rows.x)
    alike = (output[:, 0] > 0) == (output.argmax(1) == 1)
    order = torch.argsort(~alike, stable=True)
    assert 40 < int(alike.sum()) < len(rows)
    assert RowBuilder(Threshold(), MODEL, ArraySplit(rows.x[order], rows.y[order]), params(), 0).classes() is None


class ReadByOne(Rows):
    """Refuses to be read by two threads at the same time."""

    def __init__(self, count: int) -> None:
        super().__init__(count)
        self.readers: set[int] = set()
        self.busy = False

    def batch(self, sample_id: torch.Tensor) -> Batch:
        assert not self.busy
        self.busy = True
        time.sleep(0.001 if threading.get_ident() in self.readers else 0.3)  # at first until another thread waits
        self.readers.add(threading.get_ident())
        self.busy = False
        return super().batch(sample_id)


class Branching(nn.Module):
    """Control flow that depends on the data, and a pause in which another thread may run."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.fc, self.last = nn.Linear(30, 16), nn.Linear(16, 16), nn.Linear(16, 2)

    def forward(self, x: Tensor) -> Tensor:
        h = torch.relu(self.first(x))
        time.sleep(0.001)
        h = torch.tanh(self.fc(h if float(h.sum()) >= 0 else -h))
        return self.last(h)


@pytest.mark.parametrize("work", ["some", "refine"])
def test_threads_do_not_share_a_network_that_runs_with_hooks(work, set_threads) -> None:
    """Another thread's hooks would replace the layer's output by theirs."""
    refined = params(replicas=1, layout="dense", refine=refine_params(samples=12))
    found = []
    for threads in (1, 2):
        set_threads(threads)
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model = CutModel(Branching(), "fc")
        builder = RowBuilder(Noisy(), model, Rows(12), refined if work == "refine" else params(replicas=1), 0)
        assert not model.traced
        builder.batch_rows = 2
        if work == "some":
            found.append(builder.some(torch.arange(12))["delta"])
        else:
            found.append(builder.fit_refinement().coordinates.basis_kd.numpy())
    np.testing.assert_array_equal(*found)


@pytest.mark.parametrize("task", [ArrayTask(), Noisy()])
def test_any_rows_by_several_threads_have_the_bits_of_one(task, set_threads) -> None:
    found = []
    for threads in (1, 2):
        set_threads(threads)
        split = ReadByOne(24)
        builder = RowBuilder(task, MODEL, split, params(), 0)
        builder.batch_rows = 2
        found.append(builder.some(torch.arange(23, -1, -1)))
        assert len(split.readers - {threading.get_ident()}) == threads
    for name, values in found[0].items():
        np.testing.assert_array_equal(values, found[1][name], strict=True)
    assert found[0]["sample_id"].tolist() == list(range(23, -1, -1))


def test_what_refines_has_the_same_bits_by_several_threads(set_threads) -> None:
    refined = params(replicas=1, layout="dense", refine=refine_params(samples=20))
    found = []
    for threads in (1, 2):
        set_threads(threads)
        builder = RowBuilder(Noisy(), MODEL, Rows(20), refined, 0)
        builder.batch_rows = 3
        found.append(builder.fit_refinement())
    assert found[0].damping == found[1].damping > 0
    assert torch.equal(found[0].coordinates.basis_kd, found[1].coordinates.basis_kd)
