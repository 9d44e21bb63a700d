import json
import pickle
import warnings

import numpy as np
import pytest
import torch
import xarray as xr
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ocd_core.errors import UserError
from ocd_core.store import OverfitStore
from ocd_core.store.reader import row_numbers
from tests.support.stores import ATTRIBUTES, complete, make_schema, make_values


@pytest.fixture(scope="module", params=["dense", "factored"])
def stored(request, tmp_path_factory):
    schema = make_schema(request.param, rows=23, shard_rows=5)
    values = make_values(schema)
    dest = tmp_path_factory.mktemp("reader") / "train.zarr"
    complete(dest, schema, values)
    return dest, values


def test_attributes(stored):
    store = OverfitStore(stored[0])
    assert len(store) == 23
    assert store.steps == 3
    assert {k: store.attributes[k] for k in ATTRIBUTES} == ATTRIBUTES
    assert store.attributes["coordinates"] == "sample_id target"
    assert store.attributes["fingerprint"] == "f00d"
    assert store.attributes["schema_version"] == 1
    assert store.layout in repr(store)


@settings(max_examples=30)
@given(data=st.data())
def test_rows(stored, data):
    dest, values = stored
    store = OverfitStore(dest)
    rows = data.draw(
        st.one_of(
            st.none(),
            st.slices(23),
            st.lists(st.integers(-23, 22), max_size=9).map(lambda r: np.array(r, int)),
            st.lists(st.booleans(), min_size=23, max_size=23).map(np.array),
        )
    )
    for name in ("layer_input", "sample_id"):
        np.testing.assert_array_equal(store.read(name, rows), values[name] if rows is None else values[name][rows])


INTEGERS = st.integers(-15, 15)
ROWS = st.one_of(
    st.slices(12),
    st.builds(slice, st.none() | INTEGERS, st.none() | INTEGERS, st.none() | INTEGERS),
    hnp.arrays(st.sampled_from(["i1", "i8", "u1", "u8"]), hnp.array_shapes(max_dims=2, min_side=0, max_side=5)),
    st.lists(INTEGERS, max_size=5),
    hnp.arrays(st.sampled_from(["i1", "i4", "i8"]), st.integers(0, 6), elements=INTEGERS),
    hnp.arrays(bool, st.integers(11, 13)),
    hnp.arrays("f8", st.integers(0, 3), elements=st.just(0.0)),
)


def outcome(take):
    """The values, or the error, of a way to take rows."""
    try:
        return take()
    except (IndexError, ValueError) as error:
        return [type(error).__name__, str(error)]


@settings(max_examples=300)
@given(ROWS, st.sampled_from([12, 300]))
def test_rows_are_those_of_numpy(rows, count):
    expected = outcome(lambda: np.arange(count)[rows])
    np.testing.assert_array_equal(outcome(lambda: row_numbers(rows, count)), expected, strict=True)


@pytest.mark.parametrize("rows", [np.array([0, -1, 2**61]), slice(None, None, 2**60), slice(3, 9, 2)])
def test_rows_take_no_memory_for_what_a_store_claims(rows):
    assert len(row_numbers(rows, 2**62 - 1)) <= 4
    with pytest.raises(IndexError):
        row_numbers(np.array([2**62]), 2**62 - 1)


def test_out_of_range(stored):
    with pytest.raises(IndexError):
        OverfitStore(stored[0]).read("rho", np.array([23]))
    with pytest.raises(IndexError):
        OverfitStore(stored[0]).delta(-24)


def test_delta_in_both_layouts(stored):
    dest, values = stored
    store = OverfitStore(dest)
    if store.layout == "dense":
        expected = values["delta"]
    else:
        expected = np.stack(
            [
                -0.01 * sum(np.outer(u, i) for u in u_SO.astype(float))
                for u_SO, i in zip(values["grad_u"], values["layer_input"].astype(float), strict=True)
            ]
        )
    assert store.deltas().dtype == np.float32
    np.testing.assert_allclose(store.deltas(), expected, rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(store.deltas(slice(3, 9)), expected[3:9], rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(store.delta(-1), expected[-1], rtol=1e-6, atol=1e-9)


def test_condition(stored):
    dest, values = stored
    condition = OverfitStore(dest).condition(np.array([4, 1]))
    assert len(condition) == 2
    for part, name in zip(condition.parts(), ("layer_input", "layer_activation", "base_output"), strict=True):
        assert part.dtype == torch.float32
        np.testing.assert_array_equal(part.numpy(), values[name][[4, 1]])


@pytest.mark.parametrize("with_dask", [True, False])
def test_xarray_is_silent_and_labelled(stored, monkeypatch, with_dask):
    if with_dask:
        pytest.importorskip("dask.array")
    else:
        monkeypatch.setattr("xarray.namedarray.parallelcompat.list_chunkmanagers", dict)  # what xarray then finds
    dest, values = stored
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ds = xr.open_zarr(dest)
        assert bool(ds.rho.chunks) == with_dask
        ds.load()
        by_step = ds.isel(step=0, sample=slice(0, 5))
    assert set(ds.coords) == {"sample_id", "target"}
    assert set(ds.data_vars) == set(values) - {"sample_id", "target"}
    assert ds.sizes["sample"] == 23
    assert by_step.loss_after.shape == (5,)
    for name, expected in values.items():
        np.testing.assert_array_equal(ds[name].values, expected)
        assert ds[name].dtype == expected.dtype
        assert ds[name].attrs["units"] == "1"
        assert ds[name].attrs["long_name"]
    assert ds.attrs["layer"] == "fc1"
    moved = "delta" if "delta" in ds else "grad_u"
    dims = {"delta": ("sample", "out_features", "in_features"), "grad_u": ("sample", "step", "out_features")}
    assert ds[moved].dims == dims[moved]


def test_plain_zarr(stored):
    dest, values = stored
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        group = zarr.open_group(dest, mode="r")
        for name, expected in values.items():
            np.testing.assert_array_equal(group[name][:], expected)
            assert group[name].metadata.dimension_names[0] == "sample"
            codecs = group[name].metadata.to_dict()["codecs"][0]["configuration"]
            assert codecs["codecs"][-1]["name"] == "crc32c"
            assert codecs["index_codecs"][-1]["name"] == "crc32c"


def test_pickle(stored):
    again = pickle.loads(pickle.dumps(OverfitStore(stored[0])))
    assert len(again) == 23


def test_unknown_array(stored):
    with pytest.raises(UserError, match="no array 'detla'; it has"):
        OverfitStore(stored[0]).read("detla")


def test_not_a_store(tmp_path):
    with pytest.raises(UserError, match="there is no store at"):
        OverfitStore(tmp_path / "none.zarr")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="not an overfit store"):
        OverfitStore(tmp_path / "empty")
    zarr.create_group(tmp_path / "other.zarr")
    with pytest.raises(UserError, match="not an overfit store"):
        OverfitStore(tmp_path / "other.zarr")


def test_other_schema_version_and_incomplete(tmp_path):
    schema = make_schema()
    complete(tmp_path / "a.zarr", schema, make_values(schema))
    node = json.loads((tmp_path / "a.zarr" / "zarr.json").read_text())
    later = {**node, "attributes": {**node["attributes"], "schema_version": 99}}
    (tmp_path / "a.zarr" / "zarr.json").write_text(json.dumps(later))
    with pytest.raises(UserError, match="schema version 99"):
        OverfitStore(tmp_path / "a.zarr")
    del node["consolidated_metadata"]
    (tmp_path / "a.zarr" / "zarr.json").write_text(json.dumps(node))
    with pytest.raises(UserError, match="incomplete"):
        OverfitStore(tmp_path / "a.zarr")


@pytest.mark.parametrize("overfit", [{}, {"optimizer": "lion", "lr": 1.0}])
def test_factored_needs_its_optimizer(tmp_path, overfit):
    schema = make_schema("factored")
    complete(tmp_path / "a.zarr", schema, make_values(schema), attributes={"config": {"overfit": overfit}})
    with pytest.raises(UserError, match="optimizer"):
        OverfitStore(tmp_path / "a.zarr").deltas()


def test_samples_by_id(tmp_path):
    schema = make_schema(rows=6, shard_rows=4)
    values = make_values(schema)
    values["sample_id"], values["replica"] = np.array([5, 5, 2, 2, 9, 9]), np.array([0, 1] * 3)
    complete(tmp_path / "a.zarr", schema, values)
    store = OverfitStore(tmp_path / "a.zarr")
    assert [store.rows_of_replica(r) for r in (0, 1, 2)] == [3, 3, 0]
    np.testing.assert_array_equal(store.deltas_of_samples(np.array([9, 5, 9])), values["delta"][[4, 0, 4]])
    np.testing.assert_array_equal(store.deltas_of_samples(np.array([2]), replica=1), values["delta"][[3]])
    for absent in (0, 3, 10):
        with pytest.raises(UserError, match=f"no sample {absent} with replica 0"):
            store.deltas_of_samples(np.array([5, absent]))
    with pytest.raises(UserError, match="no sample 5 with replica 7"):
        store.deltas_of_samples(np.array([5]), replica=7)


def test_reading_damage_is_a_clear_error(tmp_path):
    schema = make_schema()
    complete(tmp_path / "a.zarr", schema, make_values(schema))
    path = tmp_path / "a.zarr" / schema.arrays()["delta"].file(0)
    data = bytearray(path.read_bytes())
    data[7] ^= 1
    path.write_bytes(data)
    store = OverfitStore(tmp_path / "a.zarr")
    for rows in (None, slice(1, 3), np.array([2])):
        with pytest.raises(UserError, match=r"delta does not decode .*`ocd verify`"):
            store.read("delta", rows)
    assert np.isfinite(store.read("delta", slice(4, 8))).all()
    path.unlink()
    with pytest.raises(UserError, match=r"delta does not decode .*No such file"):
        store.read("delta")


@pytest.mark.parametrize("rows", [None, slice(3, 9), np.array([4, 0, -1])])
def test_parts_of_the_condition_that_a_task_leaves_out_are_empty(tmp_path, rows):
    schema = make_schema("factored", rows=11, layer_activation=(0,), base_output=(0, 3))
    values = make_values(schema)
    complete(tmp_path / "train.zarr", schema, values)
    found = OverfitStore(tmp_path / "train.zarr").condition(rows)
    expected = values["layer_input"] if rows is None else values["layer_input"][rows]
    assert np.array_equal(found.layer_input, expected)
    assert found.layer_activation.shape == (len(expected), 0)
    assert found.base_output.shape == (len(expected), 0, 3)


@pytest.mark.parametrize("rows", [np.array([3]), slice(1, 4), slice(None, None, 3), np.array([7, 0, 7])])
def test_no_part_of_a_store_is_decoded_by_what_trusts_its_chunks(stored, monkeypatch, rows) -> None:
    """zarr takes the memory that a chunk says it needs; its arrays are only for those who ask for them."""
    store = OverfitStore(stored[0])
    wanted = {name: np.asarray(store.array(name)[:])[rows] for name in store.schema.arrays()}
    monkeypatch.setattr(type(store.array("rho")), "__getitem__", None)
    monkeypatch.setattr(type(store.array("rho")), "oindex", None)
    for name, values in wanted.items():
        np.testing.assert_array_equal(store.read(name, rows), values, strict=True)
