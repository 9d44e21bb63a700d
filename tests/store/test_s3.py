"""A store in S3, on a local server."""

import socketserver
import threading
from collections.abc import Iterator

import fsspec
import numpy as np
import pytest

from ocd_core.errors import UserError
from ocd_core.files import filesystem
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


def test_a_bucket_that_is_mistyped_is_not_created(tmp_path, s3):
    schema = make_schema("factored", rows=6, shard_rows=4)
    complete(tmp_path / "a.zarr", schema, make_values(schema))
    before = fsspec.filesystem("s3").ls("", refresh=True)
    with pytest.raises(
        UserError, match=r"^mistyped/a.zarr/.* cannot be written: .* bucket does not exist; correct the"
    ):
        copy_store(tmp_path / "a.zarr", "s3://mistyped/a.zarr")
    assert fsspec.filesystem("s3").ls("", refresh=True) == before


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """An S3 server that answers every request with an internal error, and the requests that it got."""
    requests: list[str] = []

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            requests.append(self.rfile.readline().decode())
            self.wfile.write(b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")

    s3fs = pytest.importorskip("s3fs")
    with socketserver.TCPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{server.server_address[1]}")
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        s3fs.S3FileSystem.clear_instance_cache()
        yield requests
        s3fs.S3FileSystem.clear_instance_cache()
        server.shutdown()


def test_a_server_that_fails_is_asked_a_few_times(failing: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """By default it is botocore's five attempts, and for errors of the connection five times as many."""
    with pytest.raises(OSError, match="Internal Server Error"):
        OverfitStore("s3://bucket/a.zarr")
    assert len(failing) == 2
    failing.clear()
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")  # the user's own number
    with pytest.raises(OSError, match="Internal Server Error"):
        filesystem("s3://bucket/a.zarr")[0].exists("bucket/a.zarr")
    assert len(failing) == 1
