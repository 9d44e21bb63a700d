"""A hub of one data set on this machine, asked by `datasets` and `huggingface_hub` themselves."""

import hashlib
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ocd_core.errors import UserError
from ocd_core.tasks.hugging_face import opened

COMMIT = "0123456789abcdef0123456789abcdef01234567"
CARD = "---\nlicense: cc0-1.0\n---\n# Numbers\n"

CLIENT = """
import json, sys
from ocd_core.errors import UserError
from ocd_core.tasks.hugging_face import opened

for patterns in json.loads(sys.argv[1]):
    try:
        with opened("people/numbers", patterns) as (tables, origin):
            rows = {part: tables[part]["x"][:] for part in patterns}
            print(json.dumps({"rows": rows, "files": origin.files, "licence": origin.licence}))
    except UserError as error:
        print(json.dumps(str(error)))
"""


class Hub(BaseHTTPRequestHandler):
    """The calls that reading a data set makes."""

    files: dict[str, bytes]

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, body: bool) -> None:
        path = unquote(urlsplit(self.path).path)
        api, file = "/api/datasets/people/numbers", f"/datasets/people/numbers/resolve/{COMMIT}/"
        path = path.replace("/resolve/main/", f"/resolve/{COMMIT}/")
        if path.startswith(file) and path.removeprefix(file) in self.files:
            data = self.files[path.removeprefix(file)]
            self._send(data, "application/octet-stream", body)
        elif path.startswith(f"{api}/tree/{COMMIT}"):
            below = path.removeprefix(f"{api}/tree/{COMMIT}").strip("/")
            self._send(json.dumps(self._listing(below)).encode(), "application/json", body)
        elif path in (api, f"{api}/revision/main", f"{api}/revision/{COMMIT}"):
            siblings = [{"rfilename": name} for name in self.files]
            about = {"id": "people/numbers", "sha": COMMIT, "siblings": siblings, "private": False, "tags": []}
            self._send(json.dumps(about).encode(), "application/json", body)
        else:
            self.send_response(404)
            self.send_header("X-Error-Code", "EntryNotFound")
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("Content-Length", "0")
            self.end_headers()

    def _listing(self, folder: str) -> list[dict[str, Any]]:
        inside = [name for name in self.files if not folder or name.startswith(f"{folder}/")]
        names = {name.removeprefix(folder).lstrip("/").split("/")[0] for name in inside}
        paths = sorted(f"{folder}/{name}".lstrip("/") for name in names)
        return [self._entry(p) if p in self.files else {"type": "directory", "path": p, "oid": ""} for p in paths]

    def _entry(self, name: str) -> dict[str, Any]:
        data = self.files[name]
        return {"type": "file", "path": name, "size": len(data), "oid": hashlib.sha1(data).hexdigest()}

    def _send(self, data: bytes, kind: str, body: bool) -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        self.send_header("ETag", f'"{hashlib.sha1(data).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.end_headers()
        if body:
            self.wfile.write(data)

    def log_message(self, *_args: object) -> None:
        """Nothing on the terminal."""


@pytest.fixture
def hub(tmp_path: Path) -> Iterator[str]:
    files = {"README.md": CARD.encode()}
    for name, start in (("train-1", 0), ("train-2", 10), ("test-1", 20)):
        path = tmp_path / f"{name}.parquet"
        pq.write_table(pa.table({"x": [start, start + 1]}), path)
        files[f"data/{path.name}"] = path.read_bytes()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("OneHub", (Hub,), {"files": files}))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_the_hub(hub: str, tmp_path: Path) -> None:
    asked = [
        {"train": ["data/train-*.parquet"], "test": ["**/test*.parquet"]},
        {"train": ["**/*.parquet"], "test": ["data/test-1.parquet"]},
        {"train": ["data/train-2.parquet", "data/train-*.parquet"]},
        {"train": ["nothing*"]},
    ]
    environment = {"HF_ENDPOINT": hub, "HF_HOME": str(tmp_path / "home"), "PATH": "/usr/bin", "HF_HUB_DISABLE_XET": "1"}
    done = subprocess.run(
        [sys.executable, "-c", CLIENT, json.dumps(asked)], env=environment, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    good, both, twice, none = map(json.loads, done.stdout.splitlines())
    assert good == {
        "rows": {"train": [0, 1, 10, 11], "test": [20, 21]},
        "files": {"train": ["data/train-1.parquet", "data/train-2.parquet"], "test": ["data/test-1.parquet"]},
        "licence": "cc0-1.0",
    }
    assert both == (
        "data.train_files (**/*.parquet) and data.test_files (data/test-1.parquet) both name data/test-1.parquet; "
        "a file may be in one part only"
    )
    assert "names data/train-2.parquet, twice" in twice
    assert none.startswith("data.path: cannot read 'people/numbers'")


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (
            {"train.jsonl": b'{"x": 1}\n', "test.csv": b"x\n2\n"},
            "test.csv and train.jsonl have different formats",
        ),
        ({"train.jsonl": b'{"x": 1}\n', "test.jsonl": b" \n"}, "data.test_files: test.jsonl in .* holds no rows"),
        (
            {"train.csv": b"x\n1\n", "test.csv": b"x\n\xff\n"},
            "test_files: .*test.csv is not readable .* UTF-8: .*",
        ),
        ({"train.jsonl": b'{"x": 1}\n', "test.jsonl": b"{\n"}, "data.path: cannot read .*"),
    ],
)
def test_text_files_that_cannot_be_read(tmp_path: Path, files: dict[str, bytes], message: str) -> None:
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message) as error, opened(str(tmp_path), {n.split(".")[0]: [n] for n in files}):
        pass
    assert "\n" not in str(error.value)


def test_a_folder_whose_name_looks_like_a_pattern_or_a_url(tmp_path: Path) -> None:
    folder = tmp_path / "a[1]::b*?" / "{c}"
    folder.mkdir(parents=True)
    for name, values in (("x[0].parquet", [1, 2]), ("y::z.parquet", [3])):
        pq.write_table(pa.table({"x": values}), folder / name)
    with opened(str(folder), {"train": ["x[0].parquet"], "test": ["y::z.parquet"]}) as (tables, origin):
        assert {part: tables[part]["x"][:] for part in tables} == {"train": [1, 2], "test": [3]}
        assert origin.files == {"train": ["x[0].parquet"], "test": ["y::z.parquet"]}
