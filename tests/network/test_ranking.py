"""`layers.json`, as it is written and forged."""

import json
from pathlib import Path
from typing import Any

import pytest

from ocd_core.errors import UserError
from ocd_core.network.ranking import RANKING, read_ranking


def written(folder: Path, values: Any) -> Path:
    (folder / RANKING).write_text(json.dumps(values))
    return folder


def test_a_ranking(tmp_path: Path) -> None:
    scores = [{"layer": "fc1", "entropy": 0.5}, {"layer": "fc2", "entropy": 0.25}]
    found = read_ranking(written(tmp_path, {"scores": scores, "used": {"1": "fc1", "2": "fc2"}, "warning": "close"}))
    assert (found.scores, found.used, found.warning) == (scores, {"1": "fc1", "2": "fc2"}, "close")
    assert read_ranking(written(tmp_path, {"used": {"1": "fc1"}})).warning is None


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ([], "valid dictionary"),
        ({}, "used: Field required"),
        ({"used": {}}, "used: Dictionary should have at least 1 item"),
        ({"used": {"1": 7}}, r"used\.1: Input should be a valid string"),
        ({"used": {"first": "fc1"}}, "String should match pattern"),
        ({"used": {"2": "fc1"}}, "it has no layer of rank 1"),
        ({"used": {"1": "fc1"}, "other": 1}, "other: Extra inputs"),
    ],
)
def test_what_is_none(tmp_path: Path, values: Any, words: str) -> None:
    with pytest.raises(UserError, match=rf"{RANKING} is damaged: .*{words}"):
        read_ranking(written(tmp_path, values))
