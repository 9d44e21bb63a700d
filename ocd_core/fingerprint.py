"""Which source files a module runs: its static import closure, and a fingerprint of it.

DVC's stages list their files as dependencies; the files of a task's own domain and base network differ by task
and are summed up in `data/<task>/code.json`, so that a change of one domain leaves the others' artifacts alone.
"""

import ast
import hashlib
import json
from collections.abc import Collection
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ocd_core.config import Params
from ocd_core.errors import UserError
from ocd_core.files import sha256_file, sha256_files
from ocd_core.models import model_target
from ocd_core.tasks import domain_target, task_class


def import_closure(module: str, packages: Collection[str]) -> dict[str, Path]:
    """All modules of these top-level packages that importing or running `module` may import, name -> file.

    Imports inside functions count; imports under `if TYPE_CHECKING` do not. Modules that are imported by a name
    computed at run time (domains and base networks) are not seen.
    """
    found: dict[str, Path] = {}
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name in found or name.split(".")[0] not in packages:
            continue
        path = _source(name)
        if path is None:  # an attribute of a module, not a module
            continue
        found[name] = path
        waiting.extend(_imports(path, name))
        if "." in name:
            waiting.append(name.rpartition(".")[0])
    return found


def _source(module: str) -> Path | None:
    try:
        spec = find_spec(module)
    except (ModuleNotFoundError, AttributeError, ValueError):
        return None
    return Path(spec.origin) if spec is not None and spec.origin and spec.origin.endswith(".py") else None


def _imports(path: Path, module: str) -> set[str]:
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    names: set[str] = set()
    waiting: list[ast.AST] = [ast.parse(path.read_text(encoding="utf-8"))]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            waiting.extend(node.orelse)
            continue
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parent = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*parent, *([base] if base else [])])
            names.add(base)
            names.update(f"{base}.{alias.name}" for alias in node.names)
        waiting.extend(ast.iter_child_nodes(node))
    return names


def task_code(params: Params) -> dict[str, str]:
    """The sha256 of every source file of a task's domain and base network, by module name.

    Raises:
        UserError: the source of the domain or of the network is not to be found.
    """
    return _source_hashes(domain_target(params.domain), model_target(params.base.model.name))


def pictures_code(params: Params) -> dict[str, str]:
    """The same for what draws the domain's own pictures; empty where it has none."""
    target = task_class(params.domain).pictures
    return {} if target is None else _source_hashes(target)


def _source_hashes(*targets: str) -> dict[str, str]:
    hashes: dict[str, str] = {}
    for target in targets:
        module = target.split(":")[0]
        files = import_closure(module, {module.split(".")[0], "ocd_core"})
        if module not in files:
            raise UserError(f"cannot find the source of module {module!r}; install it or correct its name")
        hashes |= {name: sha256_file(path) for name, path in files.items()}
    return dict(sorted(hashes.items()))


def module_code(module: str) -> str:
    """A fingerprint of a module and of everything in its import closure."""
    files = import_closure(module, {module.split(".")[0], "ocd_core"})
    return digest({name: sha256_file(path) for name, path in files.items()})


def folder_content(folder: Path) -> str:
    """A fingerprint of the names and contents of all files below a folder."""
    return digest(sha256_files(folder))


def digest(values: Any) -> str:
    """A short fingerprint of plain values."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]
