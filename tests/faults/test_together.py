"""Two processes at one thing: a store that is replaced while it is read, copied or exported, and two `dvc repro`."""

import subprocess
import time
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ocd_core.errors import UserError
from ocd_core.report.store_export import export_store
from ocd_core.store import OverfitStore, copy_store, copying, verify_store
from tests.faults.commands import environment
from tests.support.stores import ABOUT, complete, file_hashes, make_schema, make_values

SCHEMA = make_schema(rows=12, shard_rows=4)
WEIGHTS = b"the base network"
# the same samples, overfitted with other params
OLD = make_values(SCHEMA, seed=0)
NEW = {**make_values(SCHEMA, seed=1), "sample_id": OLD["sample_id"], "replica": OLD["replica"]}


def make(dest: Path, values: dict[str, np.ndarray], fingerprint: str) -> None:
    """What the stage does; a finished store takes the place of another one."""
    attributes = {**ABOUT, "base_sha256": sha256(WEIGHTS).hexdigest()}
    complete(dest, SCHEMA, values, fingerprint=fingerprint, attributes=attributes)


@pytest.fixture
def store(tmp_path: Path) -> Path:
    dest = tmp_path / "train.zarr"
    make(dest, OLD, "01d")
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "model.safetensors").write_bytes(WEIGHTS)
    return dest


def then_replace(real: Callable[..., Any], number: int, store: Path) -> Callable[..., Any]:
    """`real`, in whose call of this number the store is replaced first."""
    calls = 0

    def call(*args: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == number:
            make(store, NEW, "2e3")
        return real(*args)

    return call


@pytest.mark.parametrize("number", [1, 7, 30])
def test_no_copy_mixes_two_stores(store: Path, number: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(copying, "put_file", then_replace(copying.put_file, number, store))
    with pytest.raises(UserError, match=r"train\.zarr was replaced or moved while it was read; wait until nothing"):
        copy_store(store, str(tmp_path / "copy.zarr"))
    monkeypatch.undo()
    copy_store(store, str(tmp_path / "again.zarr"))
    assert file_hashes(tmp_path / "again.zarr") == file_hashes(store)


def test_no_export_mixes_two_stores(store: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(copying, "put_file", then_replace(copying.put_file, 7, store))
    with pytest.raises(UserError, match="was replaced or moved while it was read"):
        export_store(store, str(tmp_path / "exported"))
    assert not (tmp_path / "exported").exists()


def test_no_reader_mixes_two_stores(store: Path) -> None:
    opened = OverfitStore(store)
    np.testing.assert_array_equal(opened.read("delta", slice(0, 4)), OLD["delta"][:4])
    make(store, NEW, "2e3")
    for rows in (slice(4, 8), np.array([9, 2]), None):
        with pytest.raises(UserError, match="was replaced or moved while it was read"):
            opened.read("delta", rows)
    np.testing.assert_array_equal(OverfitStore(store).read("delta"), NEW["delta"])


def test_a_store_that_went_away_is_not_called_damaged(store: Path, tmp_path: Path) -> None:
    opened = OverfitStore(store)
    store.rename(tmp_path / "aside")
    with pytest.raises(UserError, match="was replaced or moved while it was read"):
        opened.read("delta")
    with pytest.raises(UserError, match="was replaced or moved while it was read"):
        verify_store_while(tmp_path / "aside", lambda: (tmp_path / "aside").rename(store))
    assert verify_store(store) == []


def verify_store_while(store: Path, change: Callable[[], object]) -> None:
    verify_store(store, lambda done, _total: change() if done == 1 else None)


SLOW = """
import time
from pathlib import Path
Path("started").touch()
while not Path("go").exists():
    time.sleep(0.01)
Path("out").write_text("whole")
"""


def test_two_dvc_repro_at_once(tmp_path: Path) -> None:
    """The second one says what blocks it and changes nothing; the first one is not disturbed."""
    (tmp_path / "slow.py").write_text(SLOW)
    (tmp_path / "dvc.yaml").write_text("stages:\n  slow:\n    cmd: python slow.py\n    outs: [out]\n")
    dvc(tmp_path, "init", "--no-scm", "-q").check_returncode()
    first = subprocess.Popen(["dvc", "repro"], cwd=tmp_path, env=environment(), stdout=subprocess.DEVNULL)
    while not (tmp_path / "started").exists():
        assert first.poll() is None
        time.sleep(0.05)
    second = dvc(tmp_path, "repro")
    assert second.returncode != 0
    assert f"(PID {first.pid})" in second.stdout
    assert "is busy" in second.stdout
    assert not (tmp_path / "out").exists()
    (tmp_path / "go").touch()
    assert first.wait(120) == 0
    assert (tmp_path / "out").read_text() == "whole"
    assert "didn't change" in dvc(tmp_path, "repro").stdout


def dvc(root: Path, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["dvc", *words], cwd=root, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        check=False,
    )  # fmt: skip
