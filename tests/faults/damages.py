"""What can happen to a file on a disk; each function changes one file, and takes another one of the same run."""

import os
from collections.abc import Callable
from pathlib import Path

Damage = Callable[[Path, Path], None]


def flipped(path: Path, _other: Path) -> None:
    """One bit of a file, in place of the file: it may be a hard link."""
    data = bytearray(path.read_bytes())
    data[len(data) // 3] ^= 4
    replaced(path, bytes(data))


def letter(path: Path, _other: Path) -> None:
    """The last letter of the file becomes another one: JSON and tables stay readable."""
    data = bytearray(path.read_bytes())
    letters = [i for i, byte in enumerate(data) if chr(byte).isascii() and chr(byte).isalpha()]
    place = letters[-1] if letters else len(data) - 1
    data[place] ^= 1
    replaced(path, bytes(data))


def truncated(path: Path, _other: Path) -> None:
    replaced(path, path.read_bytes()[:-7])


def emptied(path: Path, _other: Path) -> None:
    replaced(path, b"")


def deleted(path: Path, _other: Path) -> None:
    path.unlink()


def swapped(path: Path, other: Path) -> None:
    data = path.read_bytes()
    replaced(path, other.read_bytes())
    replaced(other, data)


def folder(path: Path, _other: Path) -> None:
    path.unlink()
    path.mkdir()


def dangling(path: Path, _other: Path) -> None:
    path.unlink()
    path.symlink_to("nowhere")


def pipe(path: Path, _other: Path) -> None:
    """What would make a reader wait for ever."""
    path.unlink()
    os.mkfifo(path)


def replaced(path: Path, data: bytes) -> None:
    path.unlink()
    path.write_bytes(data)


DAMAGES: tuple[Damage, ...] = (flipped, letter, truncated, emptied, deleted, swapped, folder, dangling, pipe)
