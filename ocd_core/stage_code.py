"""The code that belongs to a stage of a task: if any of it changes, the stage must run again.

That is the import closure of the stage's module in `ocd_core.running` and, for each package whose members are imported
by name, the members that the task's params name: its domain, its base network, its rows. So a change to another domain,
or to the caption of a figure, reruns no stage of this task. The hash is computed from files alone; nothing of the task
is imported.
"""

import ast
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from ocd_core.errors import UserError
from ocd_core.fingerprint import digest, import_closure, parsed, source_file, source_hashes
from ocd_core.pipeline import STAGES, params_module


@dataclass(frozen=True)
class _Members:
    """A package whose members are imported by name.

    keys: the dotted keys of the params that name them. module: a pattern for the module of a member. entry_points: the
    group of members from other packages.
    """

    keys: tuple[str, ...]
    module: str
    entry_points: str


BY_NAME = {
    "ocd_core.tasks": _Members(("domain",), "ocd_core.tasks.{}.task", "ocd.tasks"),
    "ocd_core.evaluation.rows": _Members(("controls.fit", "evaluate.rows"), "ocd_core.evaluation.rows.{}", "ocd.rows"),
    "ocd_core.models": _Members(("base.model.name",), "ocd_core.models.{}", "ocd.models"),
    "ocd_core.codes.representations": _Members(
        ("diffusion.representation.name",), "ocd_core.codes.representations.{}", "ocd.representations"
    ),
    "ocd_core.diffusion.denoisers": _Members(
        ("diffusion.denoiser.name",), "ocd_core.diffusion.denoisers.{}", "ocd.denoisers"
    ),
    "ocd_core.diffusion.samplers": _Members(("sampling.sampler",), "ocd_core.diffusion.samplers.{}", "ocd.samplers"),
}


def stage_code(stage: str, values: Mapping[str, Any]) -> dict[str, str]:
    """The sha256 of every source file that a stage runs for a task, by module name.

    Args:
        stage: one of `ocd_core.pipeline.STAGES`.
        values: the task's params as plain values.

    Raises:
        UserError: the source of something that the params name cannot be found.
    """
    if "evaluate" not in STAGES[stage].params:  # rows that are only evaluated do not count
        values = {group: value for group, value in values.items() if group != "evaluate"}
    return code_of(f"ocd_core.running.{stage}", values, STAGES[stage].params)


def stage_digest(stage: str, values: Mapping[str, Any]) -> str:
    """`stage_code` as one short fingerprint."""
    return digest(stage_code(stage, values))


def code_of(module: str, values: Mapping[str, Any], keys: tuple[str, ...] = ()) -> dict[str, str]:
    """Like `stage_code`, for any module; the modules that describe these dotted keys of the params count too."""
    files = _closure(module)
    if "ocd_core.config" in files:
        for key in keys:
            described = params_module(key)
            if described is not None:
                files |= _closure(described, files)
    done: set[str] = set()
    while waiting := [package for package in BY_NAME if package in files and package not in done]:
        for package in waiting:
            done.add(package)
            for name in _names(values, BY_NAME[package].keys):
                files |= _closure(_member(BY_NAME[package], name), files)
    if "ocd_core.tasks.pictures" in files:
        domain = _closure(_member(BY_NAME["ocd_core.tasks"], str(values.get("domain"))))
        for target in dict.fromkeys(t for path in domain.values() for t in _named_pictures(path)):
            files |= _closure(target.split(":")[0], files)
    return source_hashes(files)


def _closure(module: str, known: Collection[str] = ()) -> dict[str, Path]:
    """The module's files; those of `known` modules, whose own closures are known too, may be left out."""
    package = module.split(".")[0]
    known = known if package == "ocd_core" else ()  # a user's module may have others beside it
    if module in known:
        return {}
    files = import_closure(module, {"ocd_core", *_beside(package)}, known)
    if module not in files:
        raise UserError(f"cannot find the source of module {module!r}; install it or correct its name")
    return files


def _beside(package: str) -> Iterator[str]:
    """A top-level package and the others in its folder (a user's own), unless it is an installed package."""
    yield package
    path = source_file(package)
    if path is None:
        return
    folder = path.parent.parent if path.name == "__init__.py" else path.parent
    if folder.name not in ("site-packages", "dist-packages"):
        yield from (file.stem for file in folder.glob("*.py"))
        yield from (file.parent.name for file in folder.glob("*/__init__.py"))


def _names(values: Mapping[str, Any], keys: tuple[str, ...]) -> Iterator[str]:
    """The names that the params hold under these keys, which may be lists; a missing key gives none."""
    for key in keys:
        found: Any = values
        for part in key.split("."):
            found = found.get(part) if isinstance(found, Mapping) else None
        several = found if isinstance(found, list) else [] if found is None else [found]
        for name in several:
            if not isinstance(name, str):
                raise UserError(f"{key}: expected a name, found {name!r}")
            yield name


def _member(members: _Members, name: str) -> str:
    """The module of a member, which may be given as `module:attribute`."""
    if ":" in name:
        return name.split(":")[0]
    own = members.module.format(name)
    if source_file(own) is None:
        for point in entry_points(group=members.entry_points):
            if point.name == name:
                return point.module
    return own


def _named_pictures(path: Path) -> Iterator[str]:
    """Each `pictures = "module:function"` in a class body of a file (`Task.pictures`)."""
    for node in ast.walk(parsed(path)):
        for statement in node.body if isinstance(node, ast.ClassDef) else ():
            if isinstance(statement, ast.AnnAssign):
                targets: list[ast.expr] = [statement.target]
            elif isinstance(statement, ast.Assign):
                targets = statement.targets
            else:
                continue
            value = statement.value
            named = any(isinstance(t, ast.Name) and t.id == "pictures" for t in targets)
            if named and isinstance(value, ast.Constant) and isinstance(value.value, str) and ":" in value.value:
                yield value.value
