"""Every module has a test file of its own, at its place below tests/."""

import ast
from pathlib import Path

import pytest

from tests.support.repository import REPO, repository_files

# what needs no test file, and why
EXCEPTIONS = {"ocd_core/_version.py": "a number, which `ocd_core/__init__.py` shows"}


def mirror_of(module: str) -> str:
    """`ocd_core/a/b.py` is tested by `tests/a/test_b.py`, a package's own code by `tests/a/test_a.py`."""
    path = Path(module)
    name = path.parent.name if path.stem == "__init__" else path.stem
    return str(Path("tests", *path.parts[1:-1], f"test_{name}.py"))


def has_code(text: str) -> bool:
    """Whether there is more than a docstring, imports and `__all__`."""

    def counts(node: ast.stmt) -> bool:
        if isinstance(node, ast.Assign):
            return [ast.unparse(target) for target in node.targets] != ["__all__"]
        return not (isinstance(node, ast.Import | ast.ImportFrom) or (isinstance(node, ast.Expr) and is_text(node)))

    def is_text(node: ast.Expr) -> bool:
        return isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)

    return any(counts(node) for node in ast.parse(text).body)


def modules() -> list[str]:
    names = [name for name in repository_files() if name.startswith("ocd_core/") and name.endswith(".py")]
    return [name for name in names if name not in EXCEPTIONS and has_code((REPO / name).read_text(encoding="utf-8"))]


def test_every_module_has_its_test_file() -> None:
    missing = {module: mirror_of(module) for module in modules() if not (REPO / mirror_of(module)).is_file()}
    assert not missing, "\n".join(f"{module} lacks {test}" for module, test in missing.items())


def test_every_test_file_holds_tests() -> None:
    files = {REPO / mirror_of(module) for module in modules()}
    empty = [str(file) for file in sorted(files) if file.is_file() and "\ndef test_" not in file.read_text("utf-8")]
    assert not empty


def test_every_exception_is_a_module() -> None:
    assert set(EXCEPTIONS) <= set(repository_files())


@pytest.mark.parametrize(
    ("module", "test"),
    [
        ("ocd_core/rng.py", "tests/test_rng.py"),
        ("ocd_core/network/moves.py", "tests/network/test_moves.py"),
        ("ocd_core/tasks/__init__.py", "tests/tasks/test_tasks.py"),
        ("ocd_core/__init__.py", "tests/test_ocd_core.py"),
    ],
)
def test_where_the_test_of_a_module_is(module: str, test: str) -> None:
    assert mirror_of(module) == test


@pytest.mark.parametrize(
    ("text", "code"),
    [('"""Doc."""\n', False), ("from a import b\n\n__all__ = ['b']\n", False), ("import a\n\nX = a.b()\n", True)],
)
def test_what_counts_as_code(text: str, code: bool) -> None:
    assert has_code(text) == code
