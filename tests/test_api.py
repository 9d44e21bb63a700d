"""The API page: it names what the library exports, and each example in the docstrings that it shows holds."""

import doctest
import importlib
import inspect
import re
from pathlib import Path
from typing import Any

import pytest

import ocd_core
from tests.support.repository import REPO

PAGE = (REPO / "docs" / "api.md").read_text(encoding="utf-8")
ENTRY = re.compile(r"^::: (\S+)(?:\n    options:\n      members: \[(.*?)\])?", re.MULTILINE)


def documented() -> dict[str, Any]:
    """{dotted name: object}, in the order of the page."""
    found: dict[str, Any] = {}
    for name, members in ENTRY.findall(PAGE):
        module, _, attribute = name.rpartition(".")
        found[name] = getattr(importlib.import_module(module), attribute) if module else importlib.import_module(name)
        for member in filter(None, members.split(", ")):
            found[f"{name}.{member}"] = getattr(found[name], member)
    return found


def test_everything_that_is_exported_is_on_the_page() -> None:
    names = {f"ocd_core.{name}" for name in ocd_core.__all__ if not name.startswith("__")}
    assert names <= set(documented())
    calls = {name for name, member in vars(ocd_core.OCD).items() if callable(member) or isinstance(member, classmethod)}
    assert {f"ocd_core.OCD.{name}" for name in calls if not name.startswith("_")} <= set(documented())


def test_the_examples_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From the top of the page to its end, in one session, as a reader would type them."""
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    # the predictor's result is shown before its method, whose example makes it
    order = sorted(documented().items(), key=lambda entry: entry[0].endswith(".Prediction"))
    lacking = []
    for name, thing in order:
        test = doctest.DocTestParser().get_doctest(inspect.getdoc(thing) or "", names, name, None, None)
        if not test.examples:
            lacking.append(name)
        told: list[str] = []
        flags = doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE
        doctest.DocTestRunner(optionflags=flags).run(test, out=told.append, clear_globs=False)
        assert not told, "".join(told)
        names = test.globs
    assert not lacking
    assert (tmp_path / "differences.png").read_bytes()[:4] == b"\x89PNG"


@pytest.mark.parametrize("name", [name for name, thing in documented().items() if callable(thing)])
def test_a_docstring_says_what_it_raises(name: str) -> None:
    """All of them read, write or check what may be missing or wrong; a result is made by none but the library."""
    text = inspect.getdoc(documented()[name]) or ""
    if not name.endswith((".Prediction", ".Predictor")):
        assert "Raises:" in text
