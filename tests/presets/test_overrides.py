"""Single params by keys with dots, and as arguments of DVC's -S, read back as DVC reads them."""

import shlex
import string
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ruamel.yaml import YAML

from ocd_core.params_files import flat, read_yaml
from ocd_core.presets.overrides import group_of, override, override_text

WORD = st.text(string.ascii_letters, min_size=1, max_size=6).filter(
    lambda w: w.lower() not in ("null", "true", "false", "inf", "nan", "none", "yes", "no", "on", "off", "y", "n")
)
VALUE = st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.floats(-1e9, 1e9, allow_subnormal=False) | WORD


@given(groups=st.dictionaries(WORD, st.dictionaries(WORD, VALUE, min_size=1, max_size=3), max_size=3))
def test_a_tree_is_rebuilt_from_its_keys(groups: dict[str, dict[str, object]]) -> None:
    built: dict[str, object] = {}
    for key, value in flat(groups).items():
        group, last = group_of(built, key)
        group[last] = value
    assert built == groups


def test_the_group_is_the_one_in_the_tree() -> None:
    values = {"a": {"b": {"c": 1}}}
    group, last = group_of(values, "a.b.c")
    assert group is values["a"]["b"]
    assert last == "c"
    assert group_of(values, "top") == (values, "top")


@given(value=VALUE | st.lists(VALUE, max_size=3))
def test_a_value_is_one_word_of_a_shell_and_reads_back(value: object) -> None:
    text = override_text(value)
    assert YAML(typ="safe", pure=True).load(text) == value
    assert " " not in text
    assert '"' not in text


@pytest.mark.parametrize("value", [None, True, 1e-4, "cosine", ["base", "ocd"], [0.5, 1.0], []])
def test_dvc_reads_an_override_as_the_value(value: object, tmp_path: Path) -> None:
    from dvc.utils.hydra import apply_overrides

    path = tmp_path / "params" / "mine.yaml"
    path.parent.mkdir()
    path.write_text("group:\n  key: 1\n  other: 2\n")
    argument = override("mine", "group.key", value)
    assert shlex.split(argument) == [argument]
    apply_overrides(path, [argument.removeprefix("params/mine.yaml:")])
    assert read_yaml(path) == {"group": {"key": value, "other": 2}}
