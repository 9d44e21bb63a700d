"""Locate the params files of tasks and read them as plain values; `ocd_core.config` checks them."""

import string
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ocd_core.errors import UserError
from ocd_core.files import read_regular

_MOST_VALUES = 100_000
NAME_BYTES = 128  # files whose names say more than the task's must fit the 255 bytes of file systems
_IN_NAMES = {*string.ascii_letters, *string.digits, *"._-+"}


def check_task_name(task: str) -> str:
    """The name of a task, which is one component of a path and a word of commands that DVC gives to a shell.

    Raises:
        UserError: it would lead to another folder, is hidden or too long, or means something else to a shell.
    """
    plain = all(c in _IN_NAMES if c.isascii() else c.isprintable() and not c.isspace() for c in task)
    if not task or task[0] in ".-" or not plain:
        raise UserError(
            f"{task!r} is not the name of a task: name a file params/<task>.yaml by its stem, which has letters and "
            "digits of any alphabet, '_', '-', '+' and '.', and begins with neither '.' nor '-'"
        )
    if (size := len(task.encode())) > NAME_BYTES:
        raise UserError(f"the name of a task has at most {NAME_BYTES} bytes, and {task[:20]}... has {size}; shorten it")
    return task


def params_path(task: str, root: Path | str = ".") -> Path:
    """The path of a task's params file.

    Raises:
        UserError: see `check_task_name`.
    """
    check_task_name(task)
    return Path(root) / "params" / f"{task}.yaml"


def task_names(root: Path | str = ".") -> list[str]:
    """The tasks that have a params file."""
    return sorted(p.stem for p in (Path(root) / "params").glob("*.yaml"))


def read_params(task: str, root: Path | str = ".") -> Any:
    """`params/<task>.yaml` as plain values, unchecked.

    Raises:
        UserError: the task does not exist, or the file is not YAML.
    """
    path = params_path(task, root)
    if not path.is_file():
        known = ", ".join(task_names(root)) or "none"
        raise UserError(f"unknown task {task!r}: there is no {path} (tasks here: {known})")
    return read_yaml(path)


def read_yaml(path: Path) -> Any:
    """A YAML 1.2 file (so that 1e-4 is a number) as plain values.

    Raises:
        UserError: the file is not UTF-8 text or not YAML.
    """
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        text = read_regular(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path} is not UTF-8 text ({error.reason} at byte {error.start}); save it as UTF-8") from error
    try:
        values = YAML(typ="safe", pure=True).load(text)
    except (YAMLError, RecursionError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError) as error:
        # not only YAMLError: of an impossible date, `!!int xyz` or thousands of levels the parser raises other kinds
        raise UserError(f"{path} is not valid YAML: {' '.join(str(error).split())[:300]}") from error
    if not _within(values, _MOST_VALUES):
        raise UserError(f"{path} has more than {_MOST_VALUES:,} values, or anchors that stand for so many; shorten it")
    return values


def _within(values: Any, most: int) -> bool:
    """Whether there are at most so many values, if anchors are written out."""
    waiting = [values]
    while waiting:
        most -= 1
        if most < 0:
            return False
        value = waiting.pop()
        if isinstance(value, Mapping):
            waiting.extend(value.values())
        elif isinstance(value, list | tuple | set):
            waiting.extend(value)
    return True


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested groups as `group.key: value`."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found
