import json

import numpy as np
import pytest

from ocd_core.errors import UserError
from ocd_core.store import OverfitStore, verify_store
from tests.support.stores import complete, make_schema, make_values


@pytest.fixture
def dest(tmp_path):
    schema = make_schema(rows=10, shard_rows=4)
    complete(tmp_path / "a.zarr", schema, make_values(schema))
    return tmp_path / "a.zarr"


ARRAYS = list(make_schema().arrays())


@pytest.mark.parametrize("name", ARRAYS)
def test_missing_empty_and_truncated_shards_of_every_array(dest, name):
    path = dest / make_schema().arrays()[name].file(2)
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])
    (found,) = verify_store(dest)
    assert (found.shard, found.array, found.rows) == (2, name, range(8, 10))
    path.write_bytes(b"")
    (found,) = verify_store(dest)
    assert (found.shard, found.array, found.problem) == (2, name, "the file is empty")
    path.unlink()
    (found,) = verify_store(dest)
    assert str(found) == f"shard 2 of {name} (samples 8 to 9): the file is missing"
    with pytest.raises(UserError, match="missing or empty"):
        OverfitStore(dest)
    path.write_bytes(data)
    assert verify_store(dest) == []


@pytest.mark.parametrize("codec", ["none", "lz4", "zstd"])
def test_flipped_bits_are_found(tmp_path, codec):
    schema = make_schema(rows=4, shard_rows=2, codec=codec, out_features=2, in_features=3, layer_input=(3,))
    dest = tmp_path / "a.zarr"
    complete(dest, schema, make_values(schema))
    path = dest / "delta" / "c.1.0.0"
    data = path.read_bytes()
    last = len(data) * 8 - 1  # of the index's checksum
    for position in [0, last, *np.random.default_rng(0).integers(1, last, 12)]:
        flipped = bytearray(data)
        flipped[position // 8] ^= 1 << position % 8
        path.write_bytes(flipped)
        found = verify_store(dest)
        assert [(d.shard, d.array) for d in found] == [(1, "delta")], position


def test_damage_names_the_samples_of_the_chunk(tmp_path):
    schema = make_schema(rows=40, shard_rows=20, out_features=128, in_features=128, layer_input=(128,))
    chunk = schema.arrays()["delta"].chunk[0]
    assert chunk == 5
    dest = tmp_path / "a.zarr"
    complete(dest, schema, make_values(schema))
    path = dest / "delta" / "c.1.0.0"
    data = bytearray(path.read_bytes())
    offset = int(np.frombuffer(data[-(16 * 4 + 4) : -4], "<u8").reshape(4, 2)[2, 0])
    data[offset + 1000] ^= 16
    path.write_bytes(data)
    (found,) = verify_store(dest)
    assert (found.shard, found.array, found.rows) == (1, "delta", range(30, 35))
    assert "checksum" in found.problem


def test_an_absent_chunk_is_found(tmp_path):
    """A valid shard that lacks a chunk, as a partial write by someone else would leave it."""
    import zarr

    schema = make_schema(rows=40, shard_rows=20, out_features=128, in_features=128, layer_input=(128,))
    dest = tmp_path / "a.zarr"
    complete(dest, schema, make_values(schema))
    array = zarr.open_array(dest, path="delta", mode="r+", config={"write_empty_chunks": False})
    array[25:30] = np.nan
    (found,) = verify_store(dest)
    assert (found.shard, found.array, found.rows, found.problem) == (1, "delta", range(25, 30), "a chunk is absent")


@pytest.mark.parametrize(("layout", "value"), [("dense", np.nan), ("dense", -np.inf), ("factored", np.inf)])
def test_values_that_are_not_finite_are_found(tmp_path, layout, value):
    """They are written by programs at fault, so every checksum is right."""
    schema = make_schema(layout, rows=10, shard_rows=4)
    values, dest = make_values(schema), tmp_path / "a.zarr"
    names = {name for name, array in values.items() if array.dtype.kind == "f"}
    assert len(names) == 7
    for name in names:
        flat = values[name].reshape(schema.rows, -1)
        flat[5, 0] = flat[6, -1] = value
    complete(dest, schema, values)
    found = verify_store(dest)
    assert {(d.shard, d.array, d.rows) for d in found} == {(1, name, range(5, 7)) for name in names}
    assert str(found[0]) == f"shard 1 of {found[0].array} (samples 5 to 6): NaN or infinity in 2 of them"
    store = OverfitStore(dest)
    for name in names:
        for rows in (None, slice(4, 8), slice(3, 6), [6], np.arange(10) > 2):
            with pytest.raises(UserError, match=f"{name} does not decode .it holds NaN or infinity"):
                store.read(name, rows)
        np.testing.assert_array_equal(store.read(name, slice(0, 4)), values[name][:4])


def test_labels_are_the_tasks_own(tmp_path):
    """NaN may stand for a label that is missing."""
    schema = make_schema(target_dtype="float32", target_shape=(2,))
    values = make_values(schema)
    values["target"][3, 1] = np.nan
    complete(tmp_path / "a.zarr", schema, values)
    assert verify_store(tmp_path / "a.zarr") == []
    np.testing.assert_array_equal(OverfitStore(tmp_path / "a.zarr").read("target"), values["target"])


def test_factors_whose_product_is_not_finite_are_refused(tmp_path):
    schema = make_schema("factored")
    values = make_values(schema)
    values["grad_u"][2] = values["layer_input"][2] = 1e38
    complete(tmp_path / "a.zarr", schema, values)
    with pytest.raises(UserError, match="Δ is not finite"):
        OverfitStore(tmp_path / "a.zarr").deltas()


def test_shards_of_other_samples_are_found(dest):
    arrays = make_schema().arrays()
    (dest / arrays["sample_id"].file(0)).write_bytes((dest / arrays["sample_id"].file(1)).read_bytes())
    (found,) = verify_store(dest)
    assert (found.shard, found.array) == (0, "sample_id")
    assert "other samples" in found.problem


def test_damaged_array_metadata(dest):
    (dest / "rho" / "zarr.json").unlink()
    (dest / "delta" / "zarr.json").write_text("{")
    node = json.loads((dest / "target" / "zarr.json").read_text())
    (dest / "target" / "zarr.json").write_text(json.dumps({**node, "fill_value": 0}))
    found = {d.array: d.problem for d in verify_store(dest)}
    assert set(found) == {"rho", "delta", "target"}
    assert "missing" in found["rho"]
    assert "cannot be read" in found["delta"]
    assert "differs" in found["target"]


def test_changed_attributes_are_found(dest):
    text = (dest / "zarr.json").read_text()
    (dest / "zarr.json").write_text(text.replace('"lr": 0.01', '"lr": 0.03'))
    (found,) = verify_store(dest)
    assert "changed" in found.problem
    with pytest.raises(UserError, match="changed"):
        OverfitStore(dest)
    (dest / "zarr.json").write_text(text[:100])
    assert "cannot be read" in verify_store(dest)[0].problem


def test_not_a_store(tmp_path):
    with pytest.raises(UserError, match="no store"):
        verify_store(tmp_path / "none.zarr")
    (tmp_path / "x").mkdir()
    with pytest.raises(UserError, match="not an overfit store"):
        verify_store(tmp_path / "x")


def test_progress(dest):
    seen = []
    verify_store(dest, progress=lambda *p: seen.append(p))
    assert seen == [(1, 3), (2, 3), (3, 3)]
