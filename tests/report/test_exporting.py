import errno
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest

from ocd_core.errors import UserError
from ocd_core.files import filesystem, put_file
from ocd_core.report.exporting import check_alone, write_whole


def write(to: str) -> str:
    """Two files, `last` after `a/b`."""
    fs, root = filesystem(to)
    put_file(fs, f"{root}/a/b", b"1")
    put_file(fs, f"{root}/last", b"2")
    return "done"


def write_half(to: str) -> str:
    fs, root = filesystem(to)
    put_file(fs, f"{root}/a/b", b"1")
    raise KeyboardInterrupt


@pytest.fixture
def memory() -> Iterator[Any]:
    fs = fsspec.filesystem("memory")
    yield fs
    for path in ("/whole", "/other"):
        if fs.exists(path):
            fs.rm(path, recursive=True)


def test_a_local_folder_is_complete_or_absent(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        write_whole(str(tmp_path / "deep" / "d"), "last", write_half)
    assert list((tmp_path / "deep").iterdir()) == []
    assert write_whole(str(tmp_path / "deep" / "d"), "last", write) == "done"
    assert [p.name for p in (tmp_path / "deep").iterdir()] == ["d"]
    assert (tmp_path / "deep" / "d" / "a" / "b").read_bytes() == b"1"


def test_a_url_too(memory: Any) -> None:
    with pytest.raises(KeyboardInterrupt):
        write_whole("memory://whole/d/", "last", write_half)
    assert not memory.exists("/whole/d")
    assert write_whole("memory://whole/d/", "last", write) == "done"
    assert memory.cat_file("/whole/d/a/b") == b"1"


def test_a_call_that_fails_removes_only_what_it_wrote(memory: Any) -> None:
    def meets_another(to: str) -> str:
        memory.pipe_file("/whole/d/theirs", b"3")
        return write_half(to)

    with pytest.raises(KeyboardInterrupt):
        write_whole("memory://whole/d", "last", meets_another)
    assert memory.find("/whole/d") == ["/whole/d/theirs"]


def test_what_another_call_completed_stays(memory: Any) -> None:
    def second(to: str) -> str:
        write(to)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_whole("memory://whole/d", "last", second)
    assert memory.find("/whole/d") == ["/whole/d/a/b", "/whole/d/last"]


def test_a_folder_is_whole_before_its_last_file_says_so(tmp_path: Path, memory: Any) -> None:
    for place in (str(tmp_path / "d"), "memory://whole/d"):
        write(place)
        check_alone(place, ["a/b", "last"])
        with pytest.raises(UserError, match=r"d/last was put there by another process meanwhile; .*export again"):
            check_alone(place, ["a/b"])
        with pytest.raises(UserError, match=r"d/c was removed by another process"):
            check_alone(place, ["a/b", "c", "last"])


def test_what_is_there_is_never_replaced(tmp_path: Path, memory: Any) -> None:
    (tmp_path / "d").mkdir()
    with pytest.raises(UserError, match=r"exists, and is no complete export \(it has no last\)"):
        write_whole(str(tmp_path / "d"), "last", write)
    write_whole("memory://other/d", "last", write)
    with pytest.raises(UserError, match="other/d exists already; choose another place"):
        write_whole("memory://other/d", "last", write)


def test_where_nothing_can_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(UserError, match="is not a folder, which must be there"):
        write_whole(str(tmp_path / "file" / "d"), "last", write)


def test_what_cannot_be_read_is_named_itself(tmp_path: Path) -> None:
    for error in (
        PermissionError(errno.EACCES, "Permission denied", str(tmp_path / "data/a")),
        OSError(errno.EIO, "x"),
    ):

        def write(_to: str, error: OSError = error) -> None:
            raise error

        with pytest.raises(OSError) as found:
            write_whole(str(tmp_path / "d"), "last", write)
        assert found.value is error
    with pytest.raises(UserError, match="d cannot be written: No space left"):
        write_whole(str(tmp_path / "d"), "last", full_disk)
    assert list(tmp_path.iterdir()) == []


def full_disk(_to: str) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")
