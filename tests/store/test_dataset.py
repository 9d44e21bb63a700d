import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from ocd_core.store import OverfitDataset, OverfitStore
from tests.support.stores import complete, make_schema, make_values


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    found = {}
    for layout in ("dense", "factored"):
        schema = make_schema(layout, rows=50, shard_rows=8)
        dest = tmp_path_factory.mktemp("dataset") / f"{layout}.zarr"
        complete(dest, schema, make_values(schema))
        found[layout] = OverfitStore(dest)
    return found


def ids(batches):
    return torch.cat([b.sample_id_N for b in batches]).tolist()


@pytest.mark.parametrize("layout", ["dense", "factored"])
@pytest.mark.parametrize("mix", [1, 3])
def test_every_sample_once_with_its_own_values(stores, layout, mix):
    store = stores[layout]
    batches = list(OverfitDataset(store, 7, seed=1, mix=mix))
    assert [len(b) for b in batches] == [7] * 7 + [1]
    assert sorted(ids(batches)) == list(range(50))
    row_of = np.argsort(store.read("sample_id"))
    for batch in batches:
        rows = row_of[batch.sample_id_N.numpy()]
        np.testing.assert_array_equal(batch.delta_NOI.numpy(), store.deltas(rows))
        np.testing.assert_array_equal(batch.rho_N.numpy(), store.read("rho", rows).astype(np.float32))
        for part, expected in zip(batch.condition.parts(), store.condition(rows).parts(), strict=True):
            assert torch.equal(part, expected)


def test_factors(stores):
    store = stores["factored"]
    batch = next(iter(OverfitDataset(store, 7, seed=1, factors=True, shuffle=False)))
    assert batch.delta_NOI is None
    np.testing.assert_array_equal(batch.grad_u_NSO.numpy(), store.read("grad_u", slice(0, 7)))


def test_order(stores):
    store = stores["dense"]
    data = OverfitDataset(store, 7, seed=1)
    first = ids(data)
    assert ids(data) == first
    data.set_epoch(1)
    assert ids(data) != first
    assert ids(OverfitDataset(store, 7, seed=2)) != first
    stored = store.read("sample_id").tolist()
    assert first != stored
    assert ids(OverfitDataset(store, 7, seed=1, shuffle=False)) == stored


def test_drop_last(stores):
    assert [len(b) for b in OverfitDataset(stores["dense"], 7, seed=1, drop_last=True)] == [7] * 7


def test_stopping_early_ends_the_thread(stores):
    import threading

    before = threading.active_count()
    batches = iter(OverfitDataset(stores["dense"], 7, seed=1))
    next(batches)
    batches.close()
    assert threading.active_count() <= before + 1  # zarr keeps threads of its own; ours is named
    assert not [t for t in threading.enumerate() if t.name.startswith("read-ahead")]


def test_a_failing_read_is_raised(stores, monkeypatch):
    data = OverfitDataset(stores["dense"], 7, seed=1)
    monkeypatch.setattr(OverfitDataset, "_read", lambda *_: (_ for _ in ()).throw(OSError("disk gone")))
    with pytest.raises(OSError, match="disk gone"):
        list(data)


def test_workers_share_the_shards(stores):
    data = OverfitDataset(stores["dense"], 7, seed=1)
    loader = DataLoader(data, batch_size=None, num_workers=2, multiprocessing_context="fork")
    assert sorted(ids(loader)) == list(range(50))
