"""An S3 server on this machine."""

from collections.abc import Iterator

import fsspec
import pytest


@pytest.fixture(scope="module")
def s3(request: pytest.FixtureRequest) -> Iterator[str]:
    """A bucket on a server of this machine, which child processes find through the environment."""
    pytest.importorskip("s3fs")
    server_module = pytest.importorskip(
        "moto.server", reason="moto[server] is not installed: no S3 server to test with"
    )
    server = server_module.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    settings = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in settings.items():
            patch.setenv(name, value)
        # the server keeps its buckets for as long as this process lives: one for each test module
        bucket = request.module.__name__.rsplit(".", 1)[-1].replace("_", "-")
        fsspec.filesystem("s3", skip_instance_cache=True).mkdir(bucket)
        yield f"s3://{bucket}"
        fsspec.get_filesystem_class("s3").clear_instance_cache()
    server.stop()
