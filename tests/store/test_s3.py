"""A store in S3, on a local server."""

import fsspec
import numpy as np
import pytest

from ocd_core.errors import UserError
from ocd_core.store import OverfitDataset, OverfitStore, copy_store, verify_store
from tests.support.stores import complete, file_hashes, make_schema, make_values


def test_copy_read_verify_and_back(tmp_path, s3):
    schema = make_schema("factored", rows=6, shard_rows=4)
    values = make_values(schema)
    complete(tmp_path / "a.zarr", schema, values)
    url = f"{s3}/runs/a.zarr"
    copy_store(tmp_path / "a.zarr", url)
    here, there = OverfitStore(tmp_path / "a.zarr"), OverfitStore(url)
    np.testing.assert_array_equal(there.deltas(), here.deltas())
    np.testing.assert_array_equal(there.delta(5), here.delta(5))
    assert sorted(i for b in OverfitDataset(there, 4, seed=0) for i in b.sample_id_N.tolist()) == list(range(6))
    copy_store(url, str(tmp_path / "b.zarr"))
    assert file_hashes(tmp_path / "b.zarr") == file_hashes(tmp_path / "a.zarr")

    key = f"{url}/{schema.arrays()['grad_u'].file(1)}"
    fs = fsspec.filesystem("s3")
    data = bytearray(fs.cat_file(key))
    data[9] ^= 8
    fs.pipe_file(key, bytes(data))
    (damage,) = verify_store(url)
    assert (damage.shard, damage.array) == (1, "grad_u")
    with pytest.raises(UserError, match="damaged"):
        there.delta(4)


def test_nothing_there(s3):
    with pytest.raises(UserError, match=f"there is no store at {s3}/none"):
        OverfitStore(f"{s3}/none.zarr")
