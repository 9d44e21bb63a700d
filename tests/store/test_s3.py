"""A store in S3, on a local server."""

from unittest import mock

import fsspec
import numpy as np
import pytest

from ocd_core.errors import UserError
from ocd_core.store import OverfitDataset, OverfitStore, copy_store, verify_store
from tests.store.support import complete, file_hashes, make_schema, make_values

pytest.importorskip("s3fs")
server_module = pytest.importorskip("moto.server")


@pytest.fixture(scope="module")
def s3():
    server = server_module.ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    options = {"endpoint_url": f"http://{host}:{port}", "key": "k", "secret": "s"}
    with mock.patch.dict(fsspec.config.conf, s3=options):  # as a user's own fsspec configuration
        fs = fsspec.filesystem("s3", skip_instance_cache=True)
        fs.mkdir("bucket")
        yield fs
    server.stop()


def test_copy_read_verify_and_back(tmp_path, s3):
    schema = make_schema("factored", rows=6, shard_rows=4)
    values = make_values(schema)
    complete(tmp_path / "a.zarr", schema, values)
    url = "s3://bucket/runs/a.zarr"
    copy_store(tmp_path / "a.zarr", url)
    here, there = OverfitStore(tmp_path / "a.zarr"), OverfitStore(url)
    np.testing.assert_array_equal(there.deltas(), here.deltas())
    np.testing.assert_array_equal(there.delta(5), here.delta(5))
    assert sorted(i for b in OverfitDataset(there, 4, seed=0) for i in b.sample_id_N.tolist()) == list(range(6))
    copy_store(url, str(tmp_path / "b.zarr"))
    assert file_hashes(tmp_path / "b.zarr") == file_hashes(tmp_path / "a.zarr")

    key = f"bucket/runs/a.zarr/{schema.arrays()['grad_u'].file(1)}"
    data = bytearray(s3.cat_file(key))
    data[9] ^= 8
    s3.pipe_file(key, bytes(data))
    (damage,) = verify_store(url)
    assert (damage.shard, damage.array) == (1, "grad_u")
    with pytest.raises(UserError, match="damaged"):
        there.delta(4)


def test_nothing_there(s3):
    with pytest.raises(UserError, match="there is no store at s3://bucket/none"):
        OverfitStore("s3://bucket/none.zarr")
