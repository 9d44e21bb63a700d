"""Files, local or remote: one function each to replace a file, hash a file, lock a path and open a file system.

Nothing is written in place: a file may be a hard link into a cache, and a process may be killed at any time.
"""

import errno
import fcntl
import hashlib
import os
import shutil
import socket
import stat
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from typing import Any, TextIO

from ocd_core.errors import UserError

PARTIAL = ".partial"
UNREACHABLE = (ConnectionError, TimeoutError, socket.gaierror)  # another machine does not answer
_S3 = {"s3", "s3a"}
_BUCKETS = {*_S3, "gs", "gcs", "abfs", "az"}
_TRIES = 2
_SHORT = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN)


def replace_file(
    path: Path, write: Callable[[Path], object], *, several_writers: bool = False, flushed: bool = True
) -> None:
    """Call `write(temporary path)`, then give the file its name: at any time the file is the old one, the new one or
    absent.

    Other hard links to the old file keep its content. A killed process leaves at most a `*.partial` next to the file,
    which the next call removes: what has that name may also be a link or a pipe that somebody else made.

    Args:
        path: its folder is created if necessary.
        several_writers: several processes may write this file at the same time, so each uses its own temporary name;
            the caller removes what killed processes leave (`sweep_partial`). The folder must exist: a process that
            outlives its run must not recreate it.
        flushed: bring the content to the disk before the file gets its name.

    Raises:
        UserError: the disk is full, a folder has the temporary name, or a file that of a folder.
    """
    own = f".{uuid.uuid4().hex}" if several_writers else ""
    partial = path.with_name(f"{path.name}{own}{PARTIAL}")
    with full_disk_named(path):
        if not several_writers:
            make_folder(path.parent)
        if partial.is_dir() and not partial.is_symlink():
            raise UserError(f"{partial} is a folder, where a temporary file must be; move it or delete it")
        partial.unlink(missing_ok=True)
        try:
            write(partial)
            partial.chmod(0o644)  # some libraries make the file readable only by its owner
            if flushed:
                flush(partial)
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)


@contextmanager
def full_disk_named(path: Path) -> Iterator[None]:
    """Wraps writing a file.

    Raises:
        UserError: the disk is full.
    """
    try:
        yield
    except Exception as error:
        if not _is_full_disk(error):
            raise
        raise UserError(
            f"no space left on the disk of {path.parent}: free some and run the same command again; "
            "what is finished is kept"
        ) from error


def _is_full_disk(error: Exception) -> bool:
    """Whether the disk, or the user's share of it, is full; some libraries say so only in words."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    return any(f"(os error {number})" in str(error) for number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG))


def sweep_partial(folder: Path) -> None:
    """Remove the temporary files that interrupted writes left below a folder."""
    for path in folder.rglob(f"*{PARTIAL}"):
        path.unlink(missing_ok=True)


def flush(path: Path) -> None:
    """Make the operating system write a file's content, or a folder's names, to the disk."""
    fd = os.open(path, os.O_RDONLY)
    try:
        with full_disk_named(path):
            os.fsync(fd)
    finally:
        os.close(fd)


def flush_tree(folder: Path) -> None:
    """`flush` every file in a folder, and the folders; what is no file, such as a pipe, is left alone."""
    for parent, _, names in os.walk(folder, topdown=False):
        for name in names:
            if stat.S_ISREG((Path(parent) / name).lstat().st_mode):
                flush(Path(parent) / name)
        flush(Path(parent))


def utf8(text: str) -> bytes:
    """Text as UTF-8. A byte of a file's name that is no UTF-8 (in Python a lone surrogate) is an escape of JSON."""
    return text.encode("utf-8", "backslashreplace")


def read_regular(path: Path, start: int = 0, end: int | None = None) -> bytes:
    """A file's content, or its bytes from start (if negative, counted from its end) to end; links are followed.

    Raises:
        UserError: something else has the name: a folder, or what would make a reader wait for ever (a pipe, a device).
        OSError: the file is missing or cannot be read.
    """
    if not stat.S_ISREG(path.stat().st_mode):
        raise UserError(f"{path} is {'a folder' if path.is_dir() else 'a pipe or a device'}, not a file; remove it")
    with path.open("rb") as file:
        if start < 0:
            start = max(0, path.stat().st_size + start)
        file.seek(start)
        return file.read(-1 if end is None else max(0, end - start))


def make_folder(path: Path) -> None:
    """Make a folder and those above it, unless it is there.

    Raises:
        UserError: something else has the name of one of them.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        found = next((place for place in (path, *path.parents) if os.path.lexists(place)), path)
        raise UserError(f"{found} is not a folder, which must be there; move it or delete it") from error


def remove(path: Path) -> None:
    """Delete a folder with everything in it, a file or a link (not what it points to); nothing if there is none."""
    if path.is_symlink() or not path.is_dir():
        path.unlink(missing_ok=True)
    else:
        shutil.rmtree(path)


class Attempt:
    """Ignores any error inside, since there is another way, but not that the machine lacked something."""

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> bool:
        return isinstance(error, Exception) and not is_shortage(error)


def is_shortage(error: BaseException) -> bool:
    """Whether the machine lacked memory, threads or open files: then an error says nothing about what was read.

    Some libraries say so only in words.
    """
    if isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno in _SHORT):
        return True
    text = str(error).lower()
    if any(f"(os error {number})" in text for number in _SHORT):
        return True
    return isinstance(error, RuntimeError) and any(
        word in text
        for word in (
            "allocate memory",
            "allocate shared memory",
            "out of memory",
            "allocation error",
            "can't start new thread",
        )
    )


def is_of_place(error: OSError, folder: Path) -> bool:
    """Whether another folder would help: the disk is full, or what the system refused lies in this one."""
    if is_shortage(error):
        return False
    if error.filename is None:
        return _is_full_disk(error)
    path, folder = Path(os.fsdecode(error.filename)).absolute(), folder.absolute()
    return path.is_relative_to(folder) or folder.is_relative_to(path)


def sha256_file(path: Path) -> str:
    """The SHA-256 of a file's bytes, in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def sha256_files(folder: Path) -> dict[str, str]:
    """The SHA-256 of every file below a folder, by its path in the folder (with slashes), in the order of the paths."""
    return {
        path.relative_to(folder).as_posix(): sha256_file(path) for path in sorted(folder.rglob("*")) if path.is_file()
    }


def _opened_lock(path: Path) -> TextIO:
    """A lock file, created if it is missing. It is written, so it must be no link to something else."""
    refused = UserError(f"{path} is a link, a folder or a pipe, where a lock file must be; remove it")
    try:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK, 0o666)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EISDIR, errno.ENXIO):
            raise refused from error
        raise
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
        os.close(fd)
        raise refused
    return os.fdopen(fd, "a+", encoding="utf-8")


@contextmanager
def locked(path: Path, what: str) -> Iterator[None]:
    """Hold a lock file; the system releases it when the process ends, however it ends.

    Raises:
        UserError: another process holds it; `what` names what the lock guards. Or something else has the file's name.
    """
    while True:
        file = _opened_lock(path)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            holder = file.read().strip() or "another process"
            file.close()
            raise UserError(f"{what} is being written by {holder}; wait for it to end, or stop it first") from error
        with suppress(FileNotFoundError):
            if os.path.samestat(path.lstat(), os.fstat(file.fileno())):
                break
        file.close()  # a holder that has just ended removed the name, so this lock guards nothing
    try:
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}")
        file.flush()
        yield
    finally:
        path.unlink(missing_ok=True)
        file.close()


def path_of(name: Path | str) -> Path:
    """The path that a user has named, where `~` stands for the home folder (`~other` for itself if there is none)."""
    try:
        return Path(name).expanduser()
    except RuntimeError:
        return Path(name)


def is_url(location: Path | str) -> bool:
    """Whether a location is an fsspec URL such as s3://bucket/name, rather than a path."""
    return isinstance(location, str) and "://" in location


def filesystem(location: Path | str) -> tuple[Any, str]:
    """The fsspec file system of a path or URL, and the path in it without a trailing slash.

    Raises:
        UserError: fsspec does not know the protocol or lacks a package for it, or the server does not answer (some
            protocols, such as ftp, connect at once).
    """
    from fsspec.core import url_to_fs
    from fsspec.implementations.local import LocalFileSystem

    if not is_url(location):
        return LocalFileSystem(), str(Path(location).absolute())
    try:
        fs, root = url_to_fs(location, **storage_options(str(location)))
    except (ValueError, ImportError, *UNREACHABLE) as error:
        raise UserError(f"{location}: {' '.join(str(error).split())}") from error
    if hasattr(fs, "retries"):  # of s3fs, which repeats what botocore has repeated
        fs.retries = _TRIES
    return fs, str(root).rstrip("/")


def storage_options(url: str) -> dict[str, Any]:
    """Options for fsspec: how often S3 is asked before an error is shown.

    By default, botocore's attempts times those of s3fs make a server that accepts connections but never answers cost
    six minutes for each request. `AWS_MAX_ATTEMPTS` replaces botocore's number.
    """
    if url.partition("://")[0] not in _S3 or "AWS_MAX_ATTEMPTS" in os.environ:
        return {}
    return {"config_kwargs": {"retries": {"total_max_attempts": _TRIES, "mode": "standard"}}}


_PUT: ContextVar[list[str] | None] = ContextVar("put", default=None)


@contextmanager
def put_paths() -> Iterator[list[str]]:
    """The paths that `put_file` writes, or tries to write, inside the block."""
    paths: list[str] = []
    token = _PUT.set(paths)
    try:
        yield paths
    finally:
        _PUT.reset(token)


def put_file(fs: Any, path: str, data: bytes) -> None:
    """Write one file of an fsspec file system; its folder is created if necessary, but never a bucket.

    Raises:
        UserError: there is no such bucket.
    """
    protocols = {fs.protocol} if isinstance(fs.protocol, str) else {*fs.protocol}
    bucket = bool(protocols & _BUCKETS)  # its folders are only parts of names
    if not bucket:
        fs.makedirs(path.rsplit("/", 1)[0], exist_ok=True)
    if (paths := _PUT.get()) is not None:
        paths.append(path)
    try:
        fs.pipe_file(path, data)
    except FileNotFoundError as error:
        if not bucket:
            raise
        raise UserError(f"{path} cannot be written: {error}; correct the name of the bucket, or create it") from error
