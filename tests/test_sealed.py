"""JSON files with a checksum of their own."""

import json
from pathlib import Path

import pytest

from ocd_core.errors import UserError
from ocd_core.sealed import SEAL, read_sealed, write_sealed

VALUES = {"a": [1, 2.5, None], "b": {"c": "é", "ü": True}}


def test_what_is_written_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_sealed(path, VALUES)
    assert read_sealed(path, "make it again") == VALUES
    assert set(json.loads(path.read_text())) == {"a", "b", SEAL}


def test_every_changed_letter_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_sealed(path, VALUES)
    text = path.read_text()
    for place, letter in enumerate(text):
        if not letter.isspace():
            path.write_text(text[:place] + ("x" if letter != "x" else "y") + text[place + 1 :])
            with pytest.raises(UserError, match=r"a\.json is (damaged|not valid JSON)"):
                read_sealed(path, "make it again")


@pytest.mark.parametrize("values", [[], None, 3, "a", {}, {SEAL: "0"}, {"a": 1}])
def test_other_values_are_refused(tmp_path: Path, values: object) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps(values))
    with pytest.raises(UserError, match=r"a\.json is damaged: .*; make it again"):
        read_sealed(path, "make it again")
