import dataclasses

import numpy as np
import pytest

from ocd_core.report.store_geometry import Neighbours, mean_deltas, nearest_neighbours, singular_values
from ocd_core.store.summary import read_rows
from tests.support.stores import class_store, value_store


@pytest.fixture(params=["dense", "factored"])
def store(request, tmp_path):
    return class_store(tmp_path / "a.zarr", request.param)


def test_means_by_class(store):
    values = read_rows(store)
    found = mean_deltas(store, values)
    assert list(found.mean) == [0, 1, 2]
    for label in found.mean:
        members = [store.delta(i).astype(np.float64) for i in range(30) if store.read("target")[i] == label]
        assert found.rows[label] == len(members)
        np.testing.assert_allclose(found.mean[label], sum(members) / len(members), rtol=1e-12, atol=1e-15)


def test_means_within_a_bound_of_bytes(store):
    found = mean_deltas(store, read_rows(store), most_bytes=7 * 4 * 5 * 6)
    assert sum(found.rows.values()) == 7


def test_mean_without_classes(tmp_path):
    store = value_store(tmp_path / "a.zarr")
    found = mean_deltas(store, read_rows(store))
    assert found.rows == {None: 12}
    np.testing.assert_allclose(found.mean[None], store.deltas().astype(np.float64).mean(0), rtol=1e-12, atol=1e-15)


def test_singular_values_of_known_matrices(tmp_path):
    delta = np.zeros((12, 5, 6), np.float32)
    delta[:, range(5), range(5)] = [3, -7, 1, 0, 2]
    store = value_store(tmp_path / "a.zarr", delta=delta)
    np.testing.assert_allclose(singular_values(store), np.tile([7, 3, 2, 1, 0], (12, 1)), atol=1e-6)
    assert singular_values(store, most=5).shape == (5, 5)


def test_sgd_makes_rank_one(store):
    found = singular_values(store)
    np.testing.assert_allclose(found[:, 0], store.read("rho"), rtol=1e-6)
    assert (found[:, 1] < 1e-6 * found[:, 0]).all()


def test_neighbours_against_a_loop(store):
    found = nearest_neighbours(store, read_rows(store))
    assert list(found.rows) == list(range(30))
    flat = [store.delta(i).ravel().astype(np.float64) for i in range(30)]
    for i in range(30):
        cosine = [a @ flat[i] / np.sqrt((a @ a) * (flat[i] @ flat[i])) for a in flat]
        order = sorted((j for j in range(30) if j != i), key=lambda j: -cosine[j])
        assert list(found.near[i]) == order[:10]
        np.testing.assert_allclose(found.cosine[i], [cosine[j] for j in order[:10]], atol=1e-6)
        assert found.other_near[i] != i
        np.testing.assert_allclose(found.other[i], cosine[found.other_near[i]], atol=1e-6)


def test_replicas_and_zero_changes_are_not_compared(tmp_path):
    sample_id = np.arange(12) // 2
    delta = np.random.default_rng(0).standard_normal((12, 5, 6)).astype(np.float32)
    delta[4] = 0
    rho = np.linalg.norm(delta.reshape(12, -1), axis=1).astype(np.float64)
    store = value_store(tmp_path / "a.zarr", delta=delta, rho=rho, sample_id=sample_id, replica=np.arange(12) % 2)
    assert list(nearest_neighbours(store, read_rows(store)).rows) == [0, 2, 6, 8, 10]
    store = value_store(tmp_path / "b.zarr", delta=np.zeros_like(delta), rho=np.zeros(12))
    assert nearest_neighbours(store, read_rows(store)) is None


def test_a_subset_is_compared(store):
    found = nearest_neighbours(store, read_rows(store), most=8)
    assert len(found.rows) == 8
    assert found.near.shape == (8, 7)
    np.testing.assert_array_equal(found.target, store.read("target")[found.rows])


def test_shares_by_hand():
    found = Neighbours(
        rows=np.arange(4),
        near=np.array([[1, 2], [0, 3], [0, 3], [2, 0]]),
        cosine=np.zeros((4, 2)),
        other_near=np.array([3, 2, 1, 0]),
        other=np.zeros(4),
        target=np.array([0, 0, 0, 2]),
        classes=3,
    )
    assert found.same_class(1) == 3 / 4
    assert found.same_class(2) == (2 + 1 + 1 + 0) / 8
    assert found.same_class_by_chance() == 3 * 2 / (4 * 3)
    np.testing.assert_array_equal(found.class_table(), [[1, 0, 0], [np.nan] * 3, [1, 0, 0]])
    points = dataclasses.replace(found, target=np.array([[0.0, 0], [3, 4], [0, 0], [0, 1]]), classes=None)
    near, other = points.target_distance()
    assert near == pytest.approx((5 + 5 + 0 + 1) / 4)
    assert other == pytest.approx((1 + 5 + 5 + 1) / 4)
