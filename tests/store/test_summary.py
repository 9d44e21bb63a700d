import numpy as np
import pytest

from ocd_core.store import OverfitStore
from ocd_core.store.summary import array_sizes, ranged, read_rows, row_pieces, spread, subset
from tests.support.stores import ATTRIBUTES, class_store, complete, make_schema, make_values, value_store


def test_rows_of_a_classification(tmp_path):
    store = class_store(tmp_path / "a.zarr")
    values = read_rows(store)
    assert values.classes == 3
    np.testing.assert_array_equal(values.predicted, [int(np.argmax(v)) for v in store.read("base_output")])
    right = [int(np.argmax(o)) == t for o, t in zip(store.read("base_output"), store.read("target"), strict=True)]
    assert 0 < sum(right) < 30
    np.testing.assert_array_equal(values.correct, right)
    np.testing.assert_array_equal(values.loss[:, 0], store.read("loss_before"))
    np.testing.assert_array_equal(values.loss[:, 1:], store.read("loss_after"))


@pytest.mark.parametrize(
    ("schema", "target"),
    [
        ({"target_dtype": "float32"}, 1.0),
        ({"target_shape": (2,)}, 1),
        ({}, 2),  # a class that the two outputs do not have
        ({}, -1),
    ],
)
def test_targets_that_are_no_labels(tmp_path, schema, target):
    full = make_schema(**schema)
    values = make_values(full)
    values["target"][:] = 0
    values["target"][-1] = target
    complete(tmp_path / "a.zarr", full, values, attributes={**ATTRIBUTES, "classes": 2})
    rows = read_rows(OverfitStore(tmp_path / "a.zarr"))
    assert (rows.classes, rows.predicted, rows.correct) == (None, None, None)


def test_an_output_that_only_looks_like_class_scores(tmp_path):
    """An embedding of three numbers, with a whole number as its target: the domain says that there are no classes."""
    store = class_store(tmp_path / "a.zarr")
    assert store.schema.base_output == (3,)
    assert read_rows(store).classes == 3
    store.attributes["classes"] = None
    rows = read_rows(store)
    assert (rows.classes, rows.predicted, rows.correct) == (None, None, None)


def test_a_large_store_is_read_in_part(tmp_path):
    store = class_store(tmp_path / "a.zarr")
    values = read_rows(store, most=11)
    assert len(values) == len(set(values.rows)) == 11
    assert (np.diff(values.rows) > 0).all()
    np.testing.assert_array_equal(values.rho, store.read("rho")[values.rows])
    np.testing.assert_array_equal(values.correct, read_rows(store).correct[values.rows])
    np.testing.assert_array_equal(read_rows(store, most=11).rows, values.rows)


def test_subset_is_all_or_a_seeded_part():
    np.testing.assert_array_equal(subset(5, 5, "a"), np.arange(5))
    assert len(subset(1000, 10, "a")) == 10
    assert list(subset(1000, 10, "a")) != list(subset(1000, 10, "b"))


def test_pieces_cover_the_rows_within_the_bound():
    rows = np.arange(10) * 3
    pieces = row_pieces(rows, row_bytes=100, most_bytes=350)
    assert [len(rows[p]) for p in pieces] == [3, 3, 3, 1]
    np.testing.assert_array_equal(np.concatenate([rows[p] for p in pieces]), rows)
    assert len(row_pieces(rows, row_bytes=1000, most_bytes=350)) == 10


def test_rows_without_a_gap_are_a_slice():
    assert ranged(np.arange(3, 8)) == slice(3, 8)
    assert ranged(np.array([4])) == slice(4, 5)
    np.testing.assert_array_equal(ranged(np.array([3, 5])), [3, 5])


def test_sizes_are_those_of_the_files(tmp_path):
    store = value_store(tmp_path / "a.zarr")
    found = {a.name: a for a in array_sizes(store)}
    assert list(found) == list(store.schema.arrays())
    for name, size in found.items():
        on_disk = sum(p.stat().st_size for p in (tmp_path / "a.zarr" / name).rglob("*") if p.is_file())
        assert (size.stored_bytes, size.bytes) == (on_disk, store.array(name).nbytes)


def test_spread_by_hand():
    expected = {"min": 0.0, "q25": 1.0, "median": 2.0, "q75": 3.0, "max": 4.0, "mean": 2.0}
    assert spread(np.array([4.0, 0.0, 2.0, 1.0, 3.0])) == expected


def test_outputs_that_are_no_class_scores_give_no_classes(tmp_path) -> None:
    """A store from elsewhere may say anything."""
    store = class_store(tmp_path / "a.zarr", classes=3)
    assert read_rows(store, 5).classes == 3
    store.attributes["classes"] = 4
    assert read_rows(store, 5).classes is None
