"""Arrays that are written piece by piece: the bytes of numpy itself, and a full disk is an error."""

import resource
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from ocd_core.calls import data
from ocd_core.errors import UserError
from ocd_core.npy import ArrayFile
from ocd_core.tasks.speech import split


@pytest.mark.parametrize("dtype", ["float32", "float64", "int16", "int64", "uint8", "bool"])
@pytest.mark.parametrize("shape", [(7,), (7, 2, 3), (7, 0)])
def test_the_bytes_are_those_of_a_mapped_file(tmp_path: Path, dtype: str, shape: tuple[int, ...]) -> None:
    values = np.arange(np.prod(shape)).reshape(shape).astype(dtype)
    with ArrayFile(tmp_path / "a", dtype, shape) as file:
        file.append(values[:3])
        file.append(np.asfortranarray(values[3:]))
    np.lib.format.open_memmap(tmp_path / "b", "w+", np.dtype(dtype), shape)[:] = values
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_rows_that_are_missing_are_a_mistake_of_the_caller(tmp_path: Path) -> None:
    with pytest.raises(AssertionError, match="2 rows of 3"), ArrayFile(tmp_path / "a", "float32", (3,)) as file:
        file.append(np.zeros(2))


@pytest.fixture
def little_room() -> Iterator[None]:
    """This process may write no file above 4 KB."""
    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.usefixtures("little_room")
def test_a_full_disk_is_an_error(tmp_path: Path) -> None:
    x = np.zeros((5000, 1), np.float32)
    with pytest.raises(UserError, match="no space left on the disk"):
        data.write_split(data.Source.of((x, x), "train"), tmp_path / "train")
    with pytest.raises(UserError, match="no space left on the disk"):
        split.write_split(tmp_path, "train", [x.T], [5000], 0, exact=True, speakers=[None])
