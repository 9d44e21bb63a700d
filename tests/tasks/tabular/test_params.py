"""Params of tables that cannot be."""

from typing import Any

import pytest
from pydantic import ValidationError

from ocd_core.config import load_params
from tests.support.repository import REPO
from tests.tasks.tabular.tables import tabular_data


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"source": "california"}, "source california reads no files"),
        ({"path": None}, "source table needs path and train_files"),
        ({"train_files": None}, "source table needs path and train_files"),
        ({"target": None}, "name the target column"),
        ({"source": "svmlight"}, "name the target column"),
        ({"source": "svmlight", "target": None, "group": "query"}, "svmlight files have no named columns"),
        ({"test_size": None}, "give test_size"),
        ({"ranking_at": 10}, "ranking_at needs group"),
        ({"ranking_at": 10, "kind": "classification"}, "ranking_at is for kind regression"),
        ({"features": ["a", "y"]}, "features names 'y', which is the target"),
        ({"features": ["a", "q"], "group": "q"}, "features names 'q', which is the group"),
        ({"group": "y"}, "must be different columns"),
        ({"transform": "log"}, "quantile"),
        ({"val_size": 0}, "greater than or equal to 1"),
    ],
)
def test_impossible_params(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        tabular_data(**changes)


def test_the_sizes_of_california_are_the_protocols() -> None:
    data = load_params("california", REPO).data.model_dump()
    assert (data["train_size"], data["val_size"], data["test_size"]) == (13209, 3303, 4128)
    assert sum((13209, 3303, 4128)) == 20640
