"""Too little memory, too few descriptors, a full disk: never reported as damage, one line, nothing lost."""

import errno
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import SafetensorError

from ocd_core.bundles import fetch
from ocd_core.errors import UserError
from ocd_core.report import exporting
from ocd_core.store import OverfitStore, shards, verify_store
from ocd_core.store.source import Source
from ocd_core.tasks import hugging_face, image_files
from ocd_core.tasks.tabular import columns
from ocd_core.training.checkpoints import read_checkpoint, write_checkpoint
from ocd_core.weights import load_weights, read_tensors, save_tensors, tensor_shapes
from tests.support.repository import REPO
from tests.support.stores import class_store


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(class_store(tmp_path_factory.mktemp("store") / "train.zarr", rows=30).location)


SHORTAGES = {
    "memory": MemoryError("Unable to allocate 11.5 GiB"),
    "memory of a codec": RuntimeError("allocation error"),
    "threads": RuntimeError("can't start new thread"),
    "descriptors": OSError(errno.EMFILE, "Too many open files"),
    "the machine's descriptors": OSError(errno.ENFILE, "Too many open files in system"),
    "the disk's reading": OSError(errno.EIO, "Input/output error"),
}


def refused(error: BaseException) -> Callable[..., None]:
    def call(*_args: object, **_options: object) -> None:
        raise error

    return call


@pytest.mark.parametrize("name", SHORTAGES)
def test_a_shortage_is_no_damage(store: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    opened, error = OverfitStore(store), SHORTAGES[name]
    where = (Source, "read") if isinstance(error, OSError) else (shards, "_decode_chunk")
    monkeypatch.setattr(*where, refused(error))
    for use in (lambda: opened.read("delta"), lambda: verify_store(store)):
        with pytest.raises(type(error)) as found:
            use()
        assert found.value is error
    monkeypatch.undo()
    assert verify_store(store) == []


NO_MEMORY = RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory")
NO_DESCRIPTOR = OSError(errno.EMFILE, "Too many open files", "a")
IN_WORDS = SafetensorError("I/O error: Cannot allocate memory (os error 12)")


def read_own_checkpoint(folder: Path) -> None:
    write_checkpoint(folder / "c", {"a": torch.zeros(2)})
    read_checkpoint(folder / "c", torch.device("cpu"))


def read_weights(folder: Path) -> None:
    torch.save(torch.nn.Linear(2, 2).state_dict(), folder / "w.pt")
    load_weights(torch.nn.Linear(2, 2), folder / "w.pt")


def read_safetensors(folder: Path) -> None:
    save_tensors({"a": torch.zeros(2)}, folder / "t")
    read_tensors(folder / "t")


def read_shapes(folder: Path) -> None:
    (folder / "t").touch()
    tensor_shapes(folder / "t")


def check_parquet(folder: Path) -> None:
    hugging_face._check_parquet("train", [folder / "a"], ["a"], folder)


def read_columns(folder: Path) -> None:
    (folder / "a.parquet").touch()
    columns.read_file(folder / "a.parquet", ["a"])


def export(folder: Path) -> None:
    exporting.write_whole(str(folder / "d"), "last", str)


def download(folder: Path) -> None:
    fetch.bundle_folder("memory://bundle")


def decode(folder: Path) -> None:
    image_files.decode_image(b"", "the image")


@pytest.mark.parametrize(
    ("use", "where", "error"),
    [
        (read_own_checkpoint, "torch.load", NO_MEMORY),
        (read_own_checkpoint, "torch.load", torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")),
        (read_weights, "torch.load", NO_MEMORY),
        (read_safetensors, "safetensors.torch.load_file", IN_WORDS),
        (read_shapes, "safetensors.safe_open", IN_WORDS),
        (check_parquet, "pyarrow.parquet.read_metadata", NO_DESCRIPTOR),
        (read_columns, "pyarrow.parquet.read_table", NO_DESCRIPTOR),
        (export, "ocd_core.artifacts.locked", NO_DESCRIPTOR),
        (download, "fsspec.implementations.memory.MemoryFileSystem.open", NO_DESCRIPTOR),
        (decode, "PIL.Image.open", NO_DESCRIPTOR),
    ],
)
def test_a_reader_passes_a_shortage_on(
    tmp_path: Path, use: Callable[[Path], None], where: str, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(where, refused(error))
    with pytest.raises(type(error)) as found:
        use(tmp_path)
    assert found.value is error


def run(code: str, cwd: Path, limit: Callable[[], None]) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(REPO), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-c", code], cwd=cwd, env=environment, capture_output=True, text=True, check=False,
        preexec_fn=limit,
    )  # fmt: skip


VERIFY = """
import resource, sys
from itertools import repeat
from pathlib import Path
import ocd_core.store, ocd_core.verify
from ocd_core.cli import main
sys.argv = ["ocd", "verify", "train.zarr"]
used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + LEFT, used + LEFT))
held, spare = [], repeat(None, HOLD and 2**13 // HOLD)
try:
    while HOLD:  # whatever the limit and the allocator leave, in ever smaller pieces
        held.append(bytearray(HOLD))
except MemoryError:
    for _ in spare:  # Python itself needs a little to call a function
        held.pop()
main()
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux's /proc")
@pytest.mark.parametrize(("left", "hold"), [(0, 0), (2**20, 0), (0, 2**16), (0, 2**9), (0, 2**5)])
def test_a_limit_on_memory(store: Path, left: int, hold: int) -> None:
    code = VERIFY.replace("LEFT", str(left)).replace("HOLD", str(hold))
    done = run(code, store.parent, lambda: None)
    assert "damaged" not in done.stdout + done.stderr.replace("nothing is damaged", "")
    assert done.returncode in (0, 1)
    if done.returncode:
        assert done.stderr.startswith("error: "), done.stderr
        assert done.stderr.count("\n") == 1, done.stderr


def test_a_limit_on_the_size_of_files_is_a_full_disk(tmp_path: Path) -> None:
    """Every process may write no file above 4 KB; the old file stays as it was."""
    path = tmp_path / "model.safetensors"
    save_tensors({"a": torch.zeros(10)}, path)
    code = (
        "import signal, torch\nfrom pathlib import Path\nfrom ocd_core.terminal import errors_as_lines\n"
        "from ocd_core.weights import save_tensors\nsignal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "with errors_as_lines():\n    save_tensors({'a': torch.ones(10000)}, Path('model.safetensors'))\n"
    )
    done = run(code, tmp_path, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096)))
    assert done.returncode == 1
    assert done.stderr.startswith("error: no space left on the disk"), done.stderr
    assert done.stderr.count("\n") == 1
    assert torch.equal(read_tensors(path)["a"], torch.zeros(10))
    assert [p.name for p in tmp_path.iterdir()] == ["model.safetensors"]


def test_few_descriptors(store: Path) -> None:
    code = "import sys\nfrom ocd_core.cli import main\nimport ocd_core.verify\nimport resource\n"
    code += "resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))\nsys.argv = ['ocd', 'verify', 'train.zarr']\nmain()\n"
    done = run(code, store.parent, lambda: None)
    assert done.returncode == 1
    assert done.stderr.startswith("error: "), done.stderr
    assert "nothing is damaged" in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_disk_that_is_full_in_words_only(tmp_path: Path) -> None:
    from ocd_core.files import replace_file

    with pytest.raises(UserError, match="no space left on the disk"):
        replace_file(tmp_path / "a", refused(ValueError("I/O error: No space left on device (os error 28)")))
    with pytest.raises(ValueError, match="os error 2"):
        replace_file(tmp_path / "a", refused(ValueError("no such file (os error 2)")))
