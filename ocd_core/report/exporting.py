"""Writing a folder of files to a path or an fsspec URL: complete or absent.

A local folder is written under a hidden name beside its place, and then takes that name. Elsewhere nothing can be
renamed in one step, and nothing is locked: there the last file, which lists all others, says that the folder is
complete, and a call that fails removes only what it wrote itself.
"""

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

from ocd_core.artifacts import replaced_folder
from ocd_core.errors import UserError
from ocd_core.files import filesystem, is_of_place, put_paths

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
    with put_paths() as paths:
        try:
            return write(dest.rstrip("/"))
        except BaseException:
            fs.invalidate_cache()
            if not fs.exists(f"{root}/{last}"):  # another process may have completed the same
                for path in filter(fs.exists, dict.fromkeys(paths)):
                    fs.rm_file(path)
                if fs.exists(root) and not fs.find(root):  # some have folders, which are empty now
                    fs.rm(root, recursive=True)
            raise


def check_alone(dest: str, names: Iterable[str]) -> None:
    """To be called before the last file is written: the folder holds these files and no others.

    Args:
        names: paths below `dest`, a path or URL.

    Raises:
        UserError: it does not, because another process writes there or removes what it wrote.
    """
    fs, root = filesystem(dest)
    fs.invalidate_cache()
    found = {path.removeprefix(f"{root}/") for path in fs.find(root)}
    if differing := sorted(found.symmetric_difference(names)):
        what = "was put there" if differing[0] in found else "was removed"
        raise UserError(
            f"{dest}/{differing[0]} {what} by another process meanwhile; wait for its end, remove {dest}, export again"
        )


def _write_local(final: Path, write: Callable[[str], T]) -> T:
    work = final.parent
    try:
        with replaced_folder(final, only_new=True) as work:
            return write(str(work))
    except OSError as error:
        if not is_of_place(error, work):
            raise
        raise UserError(f"{final} cannot be written: {error.strerror or error}") from error
