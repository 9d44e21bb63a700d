"""The files that each part of a data set (train, val, test) reads: every file in only one part, and once.

A file in two parts means test data that was trained on; a file twice in one part counts its rows twice.
"""

from collections.abc import Hashable, Iterable, Mapping, Sequence
from pathlib import Path, PurePosixPath

from ocd_core.errors import UserError

Patterns = Mapping[str, Sequence[str]]


def local_files(folder: Path, patterns: Patterns) -> dict[str, list[Path]]:
    """The files of each part in a local folder, in the order of its patterns; those of one pattern sorted by path.

    The name of an existing file is that file, even if it looks like a pattern (`digits[1].parquet`). Patterns are those
    of `Path.glob`. Names that begin with a dot, and files in folders that begin with a dot or two underscores, match
    only patterns that name them so.

    Args:
        folder: what the patterns are relative to.
        patterns: part -> file names or patterns, the values of `data.<part>_files`.

    Raises:
        UserError: a pattern leads out of the folder, is not valid or matches no file, or a file is named twice, either
            directly or through a link.
    """
    found: dict[str, list[Path]] = {}
    for part, names in patterns.items():
        found[part] = [file for name in names for file in _matches(folder, part, name)]
    refuse_repeated(
        {part: [(str(file.relative_to(folder)), identity(file)) for file in files] for part, files in found.items()},
        patterns,
    )
    return found


def refuse_repeated(files: Mapping[str, Iterable[tuple[str, Hashable]]], patterns: Patterns) -> None:
    """Refuse a file that two parts, or two patterns of one part, name.

    Args:
        files: part -> (name, key that identifies the file).
        patterns: what the user wrote, for the message.

    Raises:
        UserError: a file is repeated; the message names it and the params.
    """
    seen: dict[Hashable, tuple[str, str]] = {}
    for part, named in files.items():
        for name, key in named:
            if key in seen:
                raise UserError(_repeated(name, part, *seen[key], patterns))
            seen[key] = name, part


def _repeated(name: str, part: str, other_name: str, other_part: str, patterns: Patterns) -> str:
    file = name if name == other_name else f"{other_name} and {name}, one file"
    given = ", ".join(patterns[part])
    if part == other_part:
        return f"data.{part}_files ({given}) names {file}, twice; name each file once"
    other_given = ", ".join(patterns[other_part])
    return (
        f"data.{other_part}_files ({other_given}) and data.{part}_files ({given}) both name {file}; "
        "a file may be in one part only"
    )


def _matches(folder: Path, part: str, name: str) -> list[Path]:
    key, components = f"data.{part}_files", PurePosixPath(name).parts
    if not name or Path(name).is_absolute() or ".." in components:
        raise UserError(f"{key}: {name!r} must be a file name or pattern inside data.path")
    if any("**" in component and component != "**" for component in components):
        raise UserError(f"{key}: {name!r}: '**' must stand alone between slashes, as in '**/*.parquet'")
    if (folder / name).is_file():
        return [folder / name]
    hidden = _hidden(components)
    found = folder.glob(name) if components else []
    matches = [file for file in found if file.is_file() and _hidden(file.relative_to(folder).parts) == hidden]
    if not matches:
        there = ", ".join(sorted(f.name for f in folder.iterdir())[:8]) or "nothing"
        raise UserError(f"{key}: {folder} has no file {name} (it holds {there})")
    return sorted(matches, key=lambda file: file.as_posix())


def _hidden(components: Sequence[str]) -> int:
    """How many of these names must be requested."""
    return sum(c.startswith(".") for c in components) + sum(c.startswith("__") for c in components[:-1])


def identity(file: Path) -> tuple[int, int]:
    """An identity that all names of a file share: symbolic and hard links, `./a` and `a`."""
    status = file.stat()
    return status.st_dev, status.st_ino
