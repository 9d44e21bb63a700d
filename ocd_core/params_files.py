"""Locate the params files of tasks and read them as plain values; `ocd_core.config` checks them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ocd_core.errors import UserError


def check_task_name(task: str) -> str:
    """The name of a task, which is one component of a path.

    Raises:
        UserError: it would lead to another folder, or is hidden.
    """
    if not task or task.startswith(".") or not task.isprintable() or {"/", "\\"} & {*task}:
        raise UserError(f"{task!r} is not the name of a task: name a file params/<task>.yaml by its stem")
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
        UserError: the file is not YAML.
    """
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        return YAML(typ="safe", pure=True).load(path.read_text(encoding="utf-8"))
    except YAMLError as error:
        raise UserError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from error


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested groups as `group.key: value`."""
    found: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found
