"""Members of a package are found by their file's name, those of installed packages by entry points."""

import sys
from importlib.metadata import EntryPoint, EntryPoints

import pytest

from ocd_core import registry as module
from ocd_core.errors import UserError
from ocd_core.registry import Registry, check_reference, without_references
from ocd_core.tasks import domain_target


@pytest.fixture
def zoo(tmp_path, monkeypatch):
    """A package of two animals, with modules that are none."""
    folder = tmp_path / "zoo_of_tests"
    (folder / "plants").mkdir(parents=True)
    files = {
        "__init__": "",
        "base": "",
        "_tools": "",
        "plants/__init__": "",
        "lion": "ANIMAL = 'roar'",
        "cat": "ANIMAL = 'meow'",
        "broken": "import nothing_of_that_name",
    }
    for name, text in files.items():
        (folder / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield Registry("animal", "zoo_of_tests", "ANIMAL", "tests.animals")
    for name in [m for m in sys.modules if m.split(".")[0] == "zoo_of_tests"]:
        del sys.modules[name]


def test_members_are_the_files(zoo):
    assert zoo.own() == ["broken", "cat", "lion"]
    assert zoo.load("lion") == "roar"
    assert zoo.target("cat") == "zoo_of_tests.cat:ANIMAL"
    assert zoo.check("cat") == "cat"


def test_only_what_is_asked_for_is_imported(zoo):
    zoo.load("lion")
    assert "zoo_of_tests.lion" in sys.modules
    assert "zoo_of_tests.cat" not in sys.modules


@pytest.mark.parametrize("name", ["base", "_tools", "plants", "dog", ""])
def test_an_unknown_name_lists_the_known_ones(zoo, name):
    with pytest.raises(
        UserError, match=rf"^unknown animal '{name}'; known are broken, cat, lion, or name your own as 'module:"
    ):
        zoo.check(name)


def test_what_does_not_import_is_named(zoo):
    with pytest.raises(UserError, match=r"cannot import animal 'zoo_of_tests.broken:ANIMAL': No module named"):
        zoo.load("broken")
    with pytest.raises(UserError, match=r"cannot import animal 'zoo_of_tests.cat:DOG'"):
        zoo.load("zoo_of_tests.cat:DOG")


def test_other_packages_add_members_and_hide_none(zoo, monkeypatch):
    points = [
        EntryPoint("puma", "zoo_of_tests.lion:ANIMAL", "tests.animals"),
        EntryPoint("cat", "zoo_of_tests.lion:ANIMAL", "tests.animals"),
    ]
    monkeypatch.setattr(module, "entry_points", lambda group: EntryPoints(points).select(group=group))
    assert zoo.names() == ["broken", "cat", "lion", "puma"]
    assert zoo.load("puma") == "roar"
    assert zoo.load("cat") == "meow"


def test_names_in_what_comes_from_others(zoo):
    with without_references("the data"):
        assert zoo.load("cat") == "meow"
        with pytest.raises(UserError, match=r"the data names code of its own, the animal 'os:system', .*trust_remote"):
            zoo.check("os:system")
        with pytest.raises(UserError, match="domain 'os:system'"):
            domain_target("os:system")
    assert zoo.load("zoo_of_tests.cat:ANIMAL") == "meow"  # afterwards, one's own names count again
    assert check_reference("animal", "os:system") == "os:system"
