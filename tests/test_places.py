"""The folder in which a command works."""

import sys
from pathlib import Path

import pytest

from ocd_core.errors import UserError
from ocd_core.places import Place


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "params").mkdir()
    (tmp_path / "params" / "a.yaml").write_text("domain: images\n")
    (tmp_path / "deep" / "down").mkdir(parents=True)
    monkeypatch.setattr(sys, "path", list(sys.path))
    return tmp_path


def test_the_nearest_folder_upwards_with_params(project: Path, monkeypatch) -> None:
    monkeypatch.chdir(project / "deep" / "down")
    place = Place.enter(None)
    assert (Path.cwd(), place.root, place.typed) == (project, project, project / "deep" / "down")
    assert sys.path[-1] == str(project)  # a task's class may be there, but hides no installed package
    (project / "deep" / "down" / "here.txt").write_text("")
    assert place.given("here.txt") == str(project / "deep/down/here.txt")
    assert place.given("data/x.zarr") == "data/x.zarr"
    assert place.given("s3://bucket/x") == "s3://bucket/x"
    assert place.new(Path("out.png")) == project / "deep/down/out.png"


def test_without_params_nothing_changes(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    before = list(sys.path)
    place = Place.enter(None)
    assert place == Place(tmp_path, tmp_path)
    assert (place.given("a"), place.new(Path("b"))) == ("a", Path("b"))
    assert sys.path == before
    with pytest.raises(UserError, match="--root none is not a folder"):
        Place.enter(Path("none"))
