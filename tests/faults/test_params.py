"""Every key of a params file with every kind of wrong value, and files that are none: one line, never a traceback."""

import copy
import gzip
import math
from collections.abc import Iterator
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from ocd_core.config import load_params, parse_params
from ocd_core.errors import UserError
from ocd_core.models import build_model
from ocd_core.params_files import read_yaml
from tests.support.repository import REPO

MISSING = object()
VALUES: tuple[Any, ...] = (
    MISSING, None, -1, 0, 10**9, 10**30, 16**5000, -0.5, 1e30, math.nan, math.inf, -math.inf, True, "", "größer\u202e",
    "1", [], [0], [math.inf], [10**9], ["x"], {}, {"a": 1}, [[[[]]]],
)  # fmt: skip
# of one task all keys; of the others only the data, which differ
TASKS = ("mnist5k", "tinynerf_demo", "california", "emotion", "speech_small", "tiny_imagenet")


def places(values: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of every key, groups included."""
    if isinstance(values, dict):
        for key, value in values.items():
            yield (*path, key)
            yield from places(value, (*path, key))


def with_value(values: dict[str, Any], path: tuple[Any, ...], value: Any) -> dict[str, Any]:
    found = copy.deepcopy(values)
    group = found
    for key in path[:-1]:
        group = group[key]
    if value is MISSING:
        del group[path[-1]]
    else:
        group[path[-1]] = value
    return found


def accepted(values: Any) -> bool:
    """Whether the params are valid; if not, the message must be one short line that names the file."""
    try:
        parse_params(values, "params/a.yaml")
    except UserError as error:
        text = str(error)
        check(text)
        return False
    return True


def check(text: str) -> None:
    assert text.startswith("params/a.yaml"), text
    assert "\n" not in text
    assert len(text) < 1000, text


def is_huge(value: Any) -> bool:
    if isinstance(value, list):
        return any(map(is_huge, value))
    return isinstance(value, int | float) and not abs(value) < 10**9


def cases(task: str, share: int) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """One in `share` of all pairs of a key and a value: each key with some values, each value at some keys."""
    paths = [
        path for path in places(read_yaml(REPO / "params" / f"{task}.yaml")) if task == TASKS[0] or path[0] == "data"
    ]
    return (pair for i, pair in enumerate(product(paths, VALUES)) if (7 * i + i // len(VALUES)) % share == 0)


def try_values(task: str, share: int = 1) -> int:
    """Try the pairs; how many. What is accepted must neither run for years nor fill the memory."""
    values = read_yaml(REPO / "params" / f"{task}.yaml")
    assert accepted(values)
    count = 0
    for path, value in cases(task, share):
        count += 1
        if accepted(with_value(values, path, value)) and is_huge(value):
            # any seed is a seed; and the constructor of a network sees its arguments
            assert path[-1] == "split_seed" or path[:3] == ("base", "model", "args"), (".".join(path), value)
    return count


@pytest.mark.parametrize("task", TASKS)
def test_keys_with_wrong_values(task: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tenth of all pairs; `make faults` tries all of them."""
    for module in ("registry", "tasks"):  # looking at all installed packages each time takes most of the time
        monkeypatch.setattr(f"ocd_core.{module}.entry_points", lambda **_: ())
    assert try_values(task, share=10) > 10


FILES: dict[str, bytes] = {
    "empty": b"",
    "a byte order mark": b"\xef\xbb\xbfdomain: images\n",
    "a list": b"[1, 2]\n",
    "a number": b"3\n",
    "a duplicate key": b"domain: images\ndomain: images\n",
    "a tab": b"domain:\n\timages\n",
    "a tag": b"domain: !!python/object/apply:os.system [touch stolen]\n",
    "an unknown tag": b"domain: !mine images\n",
    "Latin-1": "domain: größer\n".encode("latin-1"),
    "UTF-16": "domain: images\n".encode("utf-16"),
    "gzip": gzip.compress(b"domain: images\n"),
    "zeros": bytes(100),
    "thousands of levels": b"domain: " + b"[" * 1500 + b"]" * 1500,
    "thousands of mappings": b"".join(b" " * i + b"a:\n" for i in range(3000)),
    "an integer of 5,000 digits": b"domain: images\ndata: " + b"9" * 5000 + b"\n",
    "a hexadecimal of 5,000 digits": b"domain: images\ndata: 0x" + b"f" * 5000 + b"\n",
    "an impossible date": b"domain: 2026-13-45\n",
    "an impossible time zone": b"domain: 2026-01-01T00:00:00+99:99\n",
    "no integer": b"domain: !!int xyz\n",
    "no boolean": b"domain: !!bool maybe\n",
    "no number": b"domain: !!float abc\n",
    "no timestamp": b"domain: !!timestamp soon\n",
    "no binary": b"domain: !!binary '***'\n",
    "a set": b"domain: !!set {a, b}\n",
    "keys that are lists": b"? [a]\n: b\n",
    "keys that are numbers": b"domain: images\n1: 2\n",
    "an anchor of itself": b"domain: &a [*a]\n",
    "anchors of anchors": b"a0: &a0 [x, x]\n" + b"".join(b"a%d: &a%d [*a%d, *a%d]\n" % (i, i, i - 1, i - 1)
                                                            for i in range(1, 40)),
    "two documents": b"domain: images\n---\ndomain: images\n",
    "a control character": b"domain: \x07\n",
    "an unclosed quote": b"domain: 'images\n",
    "a merge of nothing": b"<<: 3\n",
}  # fmt: skip


@pytest.mark.parametrize("name", FILES)
def test_files_that_are_no_params(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "params").mkdir()
    (tmp_path / "params" / "a.yaml").write_bytes(FILES[name])
    with pytest.raises(UserError) as refused:
        load_params("a")
    check(str(refused.value))
    assert [path.name for path in tmp_path.iterdir()] == ["params"]


def test_a_byte_order_mark_is_no_part_of_the_first_key(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_bytes(b"\xef\xbb\xbfdomain: images\n")
    assert read_yaml(path) == {"domain": "images"}


@pytest.mark.parametrize("value", [-1, 0, 1.5, "x", None, [], True])
@pytest.mark.parametrize(("name", "args", "key"), [
    ("lenet5", {"classes": 10}, "classes"),
    ("mlp", {"in_features": 2, "out_features": 2, "hidden": [6]}, "in_features"),
    ("mlp", {"in_features": 2, "out_features": 2, "hidden": [6]}, "hidden"),
    ("tinynerf", {"width": 16, "frequencies": 4}, "width"),
])  # fmt: skip
def test_a_network_of_impossible_size(name: str, args: dict[str, Any], key: str, value: Any) -> None:
    """What the constructor accepts is a network; everything else is one line."""
    try:
        build_model(name, {**args, key: value})
    except UserError as error:
        assert "\n" not in str(error)  # noqa: PT017
