"""Params files are found and read as plain values; what is wrong with one is a line that names it."""

import pytest

from ocd_core.errors import UserError
from ocd_core.params_files import flat, params_path, read_params, task_names


@pytest.fixture
def root(tmp_path):
    folder = tmp_path / "params"
    folder.mkdir()
    (folder / "b.yaml").write_text("overfit:\n  lr: 1e-4\n  name: ä\n", encoding="utf-8")
    (folder / "a.yaml").write_text("overfit: [1, 2\n")
    (folder / "notes.txt").write_text("")
    return tmp_path


def test_tasks_are_the_files(root):
    assert task_names(root) == ["a", "b"]
    assert params_path("b", root) == root / "params" / "b.yaml"


def test_numbers_are_numbers_of_yaml_1_2(root):
    assert read_params("b", root) == {"overfit": {"lr": 1e-4, "name": "ä"}}


def test_what_is_wrong_is_named(root):
    with pytest.raises(UserError, match=r"a\.yaml is not valid YAML") as error:
        read_params("a", root)
    assert "\n" not in str(error.value)
    with pytest.raises(UserError, match=r"unknown task 'c': there is no .*c\.yaml \(tasks here: a, b\)"):
        read_params("c", root)


def test_flat_keys_are_those_of_overrides():
    assert flat({"a": 1, "b": {"c": None, "d": {"e": [1, {"f": 2}]}}, "g": {}}) == {
        "a": 1,
        "b.c": None,
        "b.d.e": [1, {"f": 2}],
        "g": {},
    }
