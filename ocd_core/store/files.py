"""Files that are whole or absent, and one writer at a time."""

import errno
import fcntl
import os
import socket
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ocd_core.errors import UserError

PARTIAL = ".partial"


def write_atomic(path: Path, pieces: Iterable[Any]) -> None:
    """Write pieces of bytes beside `path` and rename: at any time the file is the old one, the new one or absent.

    A file that other names are hard-linked to keeps its content under those. Not flushed to disk: see `flush`.

    Raises:
        UserError: the disk is full.
    """
    partial = path.with_name(f"{path.name}.{uuid.uuid4().hex}{PARTIAL}")
    with _full_disk_named(path):
        try:
            with partial.open("wb") as file:
                file.writelines(pieces)
            partial.replace(path)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise


@contextmanager
def _full_disk_named(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
        raise UserError(
            f"no space left on the disk of {path.parent}: free some and run the same command again; "
            "what is finished is kept"
        ) from error


def sweep_partial(folder: Path) -> None:
    """Remove what interrupted writes left."""
    for path in folder.rglob(f"*{PARTIAL}"):
        path.unlink(missing_ok=True)


def flush(path: Path) -> None:
    """Have the operating system put a file's content, or a folder's names, on the disk."""
    fd = os.open(path, os.O_RDONLY)
    try:
        with _full_disk_named(path):
            os.fsync(fd)
    finally:
        os.close(fd)


def flush_tree(folder: Path) -> None:
    """`flush` for everything in a folder, and the folder."""
    for parent, _, names in os.walk(folder, topdown=False):
        for name in names:
            flush(Path(parent) / name)
        flush(Path(parent))


@contextmanager
def locked(path: Path, what: str) -> Iterator[None]:
    """Hold a lock file; the system lets go of it when the process ends, however it ends.

    Raises:
        UserError: another process holds it; `what` names what it guards.
    """
    while True:
        file = path.open("a+")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            holder = file.read().strip() or "another process"
            file.close()
            raise UserError(f"{what} is being written by {holder}; wait for it to end, or stop it first") from error
        with suppress(FileNotFoundError):
            if os.path.samestat(path.stat(), os.fstat(file.fileno())):
                break
        file.close()  # a holder that ended meanwhile has removed the name, so this lock guards nothing
    try:
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}")
        file.flush()
        yield
    finally:
        path.unlink(missing_ok=True)
        file.close()
