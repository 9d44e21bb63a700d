import sys
from pathlib import Path

import pytest

from ocd_core.fingerprint import digest, folder_content, import_closure, module_code

FILES = {
    "made/__init__.py": "",
    "made/a.py": "from made import b\nfrom typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import made.hidden\n",
    "made/b.py": "def f():\n    from .sub import c\n    import numpy\n",
    "made/sub/__init__.py": "from .c import X\n",
    "made/sub/c.py": "X = 1\n",
    "made/hidden.py": "",
    "made/unused.py": "",
}


@pytest.fixture
def package(tmp_path, monkeypatch) -> Path:
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    for name in [m for m in sys.modules if m.split(".")[0] == "made"]:
        monkeypatch.delitem(sys.modules, name)
    return tmp_path


def test_closure_follows_imports_and_nothing_else(package) -> None:
    assert set(import_closure("made.a", {"made"})) == {"made", "made.a", "made.b", "made.sub", "made.sub.c"}
    assert set(import_closure("made.a", {"other"})) == set()
    known = import_closure("made.b", {"made"})
    assert set(import_closure("made.a", {"made"}, known)) == {"made.a"}
    assert set(import_closure("made.a", {"made"}, {"made.b"})) == {"made", "made.a"}


def test_fingerprint_changes_with_any_file_of_the_closure(package) -> None:
    before = module_code("made.a")
    (package / "made/unused.py").write_text("x = 2\n")
    assert module_code("made.a") == before
    (package / "made/sub/c.py").write_text("X = 2\n")
    assert module_code("made.a") != before


def test_folder_content_sees_names_and_bytes(tmp_path) -> None:
    (tmp_path / "a").write_text("1")
    first = folder_content(tmp_path)
    (tmp_path / "a").rename(tmp_path / "b")
    second = folder_content(tmp_path)
    (tmp_path / "b").write_text("2")
    assert len({first, second, folder_content(tmp_path)}) == 3


def test_digest_does_not_depend_on_the_order_of_keys() -> None:
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1}) != digest({"a": 2, "b": 1})
