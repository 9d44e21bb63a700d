"""Params files are found and read as plain values; what is wrong with one is a line that names it."""

import json
import string
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ocd_core.errors import UserError
from ocd_core.params_files import check_task_name, flat, params_path, read_params, read_yaml, task_names


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
    (root / "params" / "c.yaml").write_text("a: 010\nb: no\nc: 1e3\n")
    assert read_params("c", root) == {"a": 10, "b": "no", "c": 1000.0}


@pytest.mark.parametrize("task", ["mnist5k_paper", "a.b-c+2", "größe", "数字", "हिन्दी", "цифры"])
def test_names_of_any_alphabet(task: str) -> None:
    assert check_task_name(task) == task


@pytest.mark.parametrize(
    "task", ["my task", "a\u3000b", "a'b", 'a"b', "$(touch stolen)", "a;b", "-a", ".a", "a/b", "a:b", ""]
)
def test_names_that_a_shell_or_dvc_takes_for_something_else(task: str) -> None:
    with pytest.raises(UserError, match="is not the name of a task: name a file"):
        check_task_name(task)


TEXT = st.text(string.printable, max_size=8)
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=60)
@given(values=st.dictionaries(TEXT, PLAIN, max_size=4))
def test_json_is_read_as_what_it_holds(values: dict[str, Any]) -> None:
    """YAML 1.2 holds JSON: numbers, words such as "no" and empty groups come back as they are."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "a.yaml"
        path.write_text(json.dumps(values))
        assert read_yaml(path) == values


def test_what_is_wrong_is_named(root):
    with pytest.raises(UserError, match=r"a\.yaml is not valid YAML") as error:
        read_params("a", root)
    assert "\n" not in str(error.value)
    with pytest.raises(UserError, match=r"unknown task 'c': there is no .*c\.yaml \(tasks here: a, b\)"):
        read_params("c", root)
    with pytest.raises(UserError, match=r"\(tasks here: none\)"):
        read_params("c", root / "params")


def test_flat_keys_are_those_of_overrides():
    assert flat({"a": 1, "b": {"c": None, "d": {"e": [1, {"f": 2}]}}, "g": {}}) == {
        "a": 1,
        "b.c": None,
        "b.d.e": [1, {"f": 2}],
        "g": {},
    }
