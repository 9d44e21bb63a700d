"""The source files that a module runs (its static import closure), and fingerprints of code, folders and values.

Nothing is imported for this, so it takes a fraction of a second.
"""

import ast
import hashlib
import json
from collections.abc import Collection
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from ocd_core.errors import UserError
from ocd_core.files import sha256_file, sha256_files


def import_closure(module: str, packages: Collection[str], known: Collection[str] = ()) -> dict[str, Path]:
    """All modules of these top-level packages that importing or running `module` may import: name -> file.

    Imports inside functions count; imports under `if TYPE_CHECKING` do not. Modules whose names are computed at run
    time are not found: `ocd_core.stage_code` adds those that a task's params name.

    Args:
        known: modules that are left out, with what they import.
    """
    found: dict[str, Path] = {}
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name in found or name in known or name.split(".")[0] not in packages:
            continue
        path = source_file(name)
        if path is None:  # an attribute of a module, not a module
            continue
        found[name] = path
        waiting.extend(_imports(path, name, path.stat().st_mtime_ns))
        if "." in name:
            waiting.append(name.rpartition(".")[0])
    return found


def source_file(module: str) -> Path | None:
    """The Python file of a module, found without importing its packages; None if there is none."""
    root, *rest = module.split(".")
    try:
        spec = find_spec(root)
    except (ImportError, ValueError):
        return None
    if spec is None:
        return None
    if not rest:
        return Path(spec.origin) if spec.origin and spec.origin.endswith(".py") else None
    for place in spec.submodule_search_locations or ():
        path = Path(place, *rest)
        for file in (path / "__init__.py", path.with_name(f"{path.name}.py")):
            if file.is_file():
                return file
    return None


def parsed(path: Path) -> ast.Module:
    """The syntax tree of a source file, which may be a user's own.

    Raises:
        UserError: it is not Python, or not UTF-8; the message names the line.
    """
    try:
        return ast.parse(path.read_bytes(), str(path))
    except SyntaxError as error:
        raise UserError(f"{path}, line {error.lineno}: {error.msg}; correct this file") from error
    except ValueError as error:  # null bytes
        raise UserError(f"{path} is not Python source: {error}; correct this file") from error


@lru_cache(maxsize=1024)
def _imports(path: Path, module: str, _modified: int) -> frozenset[str]:
    """The names that a file imports; the file is read again when it has changed."""
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    names: set[str] = set()
    waiting: list[ast.AST] = [parsed(path)]
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
    return frozenset(names)


def source_hashes(files: dict[str, Path]) -> dict[str, str]:
    """The sha256 of each module's file, by module name in order."""
    return {name: sha256_file(files[name]) for name in sorted(files)}


def module_code(module: str) -> str:
    """A fingerprint of a module and everything in its import closure."""
    return digest(source_hashes(import_closure(module, {module.split(".")[0], "ocd_core"})))


def folder_content(folder: Path) -> str:
    """A fingerprint of the names and contents of all files below a folder."""
    return digest(sha256_files(folder))


def digest(values: Any) -> str:
    """A short fingerprint of plain values."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]
