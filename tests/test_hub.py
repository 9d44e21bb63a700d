"""Folders and hub ids by their names."""

from pathlib import Path

import pytest

from ocd_core.errors import UserError
from ocd_core.hub import local_folder, unreadable


def test_what_exists_is_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "owner" / "name").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in (str(tmp_path), "owner", "owner/name", "./owner"):
        assert local_folder(name, "data.path") == Path(name)
    assert local_folder("~/owner", "data.path") == tmp_path / "owner"


@pytest.mark.parametrize("name", ["owner/name", "name"])
def test_what_may_be_a_hub_id(name: str) -> None:
    assert local_folder(name, "data.path") is None


@pytest.mark.parametrize("name", ["/no/where", "./nowhere", "~/nowhere-at-all", "a/b/c"])
def test_what_can_only_be_a_folder(name: str) -> None:
    with pytest.raises(UserError, match=rf"data\.path: there is no folder {name}"):
        local_folder(name, "data.path")


def test_one_line_for_a_librarys_error() -> None:
    found = str(unreadable("owner/name", "data.encoder", False, OSError("two\n  lines" + "x" * 500)))
    assert found.startswith("data.encoder: cannot load 'owner/name' (Hugging Face hub id; it needs the network")
    assert "OSError: two lines" in found
    assert len(found) < 330
    assert "(folder)" in str(unreadable("here", "data.encoder", True, OSError()))
