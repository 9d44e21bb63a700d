"""Writing a folder of files to a path or an fsspec URL: complete or absent.

A local folder is written under a hidden name beside its place, and then takes that name. Elsewhere nothing can be
renamed in one step: there the last file, which lists all others, says that the folder is complete.
"""

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from ocd_core.artifacts import replaced_folder
from ocd_core.errors import UserError
from ocd_core.files import filesystem, is_of_place

T = TypeVar("T")


def write_whole(dest: str, last: str, write: Callable[[str], T]) -> T:
    """Call `write` with the path or URL to write to; returns its result.

    Args:
        dest: a path or fsspec URL at which nothing is yet.
        last: the file that `write` writes last.

    Raises:
        UserError: `dest` exists or cannot be written.
        OSError: what is exported cannot be read, or the machine lacks memory or open files.
    """
    fs, root = filesystem(dest)
    if fs.exists(root):
        whole = fs.exists(f"{root}/{last}")
        what = "exists already" if whole else f"exists, and is no complete export (it has no {last})"
        raise UserError(f"{dest} {what}; choose another place or remove it")
    if "file" in (fs.protocol if isinstance(fs.protocol, tuple) else (fs.protocol,)):
        return _write_local(Path(root), write)
    try:
        return write(dest.rstrip("/"))
    except BaseException:
        if fs.exists(root) and not fs.exists(f"{root}/{last}"):
            fs.rm(root, recursive=True)
        raise


def _write_local(final: Path, write: Callable[[str], T]) -> T:
    work = final.parent
    try:
        with replaced_folder(final, only_new=True) as work:
            return write(str(work))
    except OSError as error:
        if not is_of_place(error, work):
            raise
        raise UserError(f"{final} cannot be written: {error.strerror or error}") from error
