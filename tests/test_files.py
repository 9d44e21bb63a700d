import errno
import os
import socket
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from ocd_core.errors import UserError
from ocd_core.files import (
    filesystem,
    is_url,
    locked,
    path_of,
    put_file,
    replace_file,
    sha256_file,
    sha256_files,
    sweep_partial,
)


@pytest.mark.parametrize("several_writers", [False, True])
def test_replace_file_keeps_the_old_one_until_the_new_one_is_whole(tmp_path, several_writers):
    path = tmp_path / "x"
    replace_file(path, lambda p: p.write_text("old"), several_writers=several_writers)
    (tmp_path / "link").hardlink_to(path)

    def fails(p):
        p.write_text("ne")
        raise OSError("broken")

    with pytest.raises(OSError, match="broken"):
        replace_file(path, fails, several_writers=several_writers)
    assert path.read_text() == "old"
    replace_file(path, lambda p: p.write_text("new"), several_writers=several_writers)
    assert path.read_text() == "new"
    assert (tmp_path / "link").read_text() == "old"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["link", "x"]


def test_replace_file_makes_the_folder_but_for_several_writers(tmp_path):
    replace_file(tmp_path / "a/b/x", lambda p: p.write_text("x"))
    assert (tmp_path / "a/b/x").read_text() == "x"
    with pytest.raises(FileNotFoundError):
        replace_file(tmp_path / "c/x", lambda p: p.write_text("x"), several_writers=True)
    assert not (tmp_path / "c").exists()


def test_a_library_that_writes_for_the_owner_alone(tmp_path):
    def write(p):
        p.write_text("x")
        p.chmod(0o600)

    replace_file(tmp_path / "x", write)
    assert (tmp_path / "x").stat().st_mode & 0o777 == 0o644


def test_a_full_disk_is_named(tmp_path):
    def write(p):
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(UserError, match=f"no space left on the disk of {tmp_path}"):
        replace_file(tmp_path / "x", write)


def test_writers_of_one_file_do_not_meet(tmp_path):
    """Each thread reads its own temporary file while all of them have one open."""
    count = 4
    barrier = threading.Barrier(count, timeout=30)

    def write_as(number):
        def write(p):
            p.write_text(str(number))
            barrier.wait()
            assert p.read_text() == str(number)

        replace_file(tmp_path / "x", write, several_writers=True, flushed=False)

    with ThreadPoolExecutor(count) as pool:
        list(pool.map(write_as, range(count)))
    assert (tmp_path / "x").read_text() in "0123"
    assert len(list(tmp_path.iterdir())) == 1


def test_sweep_partial_takes_temporary_files_alone(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a/x.abc.partial").write_text("x")
    (tmp_path / "a/x").write_text("x")
    sweep_partial(tmp_path)
    assert [p.name for p in (tmp_path / "a").iterdir()] == ["x"]


def test_sha256_of_a_file_is_the_standards(tmp_path):
    (tmp_path / "f").write_bytes(b"abc")  # FIPS 180-2, appendix B.1
    assert sha256_file(tmp_path / "f") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_sha256_of_a_folder_is_that_of_coreutils(tmp_path):
    (tmp_path / "b").mkdir()
    for name in ("b/x", "a", "c d"):
        (tmp_path / name).write_bytes(name.encode() * 10_000)
    lines = subprocess.run(
        ["sha256sum", "a", "b/x", "c d"], cwd=tmp_path, check=True, capture_output=True, text=True
    ).stdout.splitlines()
    expected = {name: digest for digest, name in (line.split("  ") for line in lines)}
    assert sha256_files(tmp_path) == expected
    assert list(sha256_files(tmp_path)) == ["a", "b/x", "c d"]


def test_one_holder_of_a_lock_at_a_time(tmp_path):
    path = tmp_path / "lock"
    with (
        locked(path, "the store"),
        pytest.raises(UserError, match=f"the store is being written by process {os.getpid()} on"),
        locked(path, "the store"),
    ):
        pass
    with locked(path, "the store"):
        assert path.exists()
    assert not path.exists()


@pytest.mark.parametrize("name", ["plain", "a::b ~c#d", "ä ö"])
def test_a_path_is_taken_as_it_is(tmp_path, name):
    fs, root = filesystem(tmp_path / name)
    assert root == str(tmp_path / name)
    put_file(fs, f"{root}/below/x", b"data")
    assert (tmp_path / name / "below/x").read_bytes() == b"data"
    assert filesystem(f"file://{tmp_path}/other/")[1] == f"{tmp_path}/other"


def test_a_url_is_opened_by_its_protocol():
    fs, root = filesystem("memory://files/test/")
    assert root == "/files/test"
    put_file(fs, f"{root}/below/x", b"data")
    assert fs.cat_file("/files/test/below/x") == b"data"
    fs.rm("/files", recursive=True)
    with pytest.raises(UserError, match="nosuch://a: Protocol not known"):
        filesystem("nosuch://a")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(UserError, match=f"ftp://127.0.0.1:{port}/a: .*refused"):  # it connects at once
        filesystem(f"ftp://127.0.0.1:{port}/a")


def test_what_is_a_url(tmp_path):
    assert is_url("s3://bucket/a")
    assert not is_url(tmp_path)
    assert not is_url("a/b")


def test_paths_of_the_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert path_of("~/a/b") == tmp_path / "a" / "b"
    assert [str(path_of(name)) for name in ("~nobody-has-this-name/a", "a/~", "/a")] == [
        "~nobody-has-this-name/a", "a/~", "/a",
    ]  # fmt: skip
