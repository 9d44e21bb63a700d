from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from ocd_core.tasks.text.params import TextData
from tests.support.texts import text_values


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"val_shots": 4}, r"val_shots \(4\) must be below shots \(4\)"),
        ({"val_shots": 0}, "greater than or equal to 1"),
        ({"encoder": ""}, "at least 1 character"),
        ({"train_files": []}, "at least 1 item"),
        ({"classes": 2}, "Extra inputs are not permitted"),
        ({"headline": "f1"}, "'accuracy' or 'mcc'"),
    ],
)
def test_impossible_params(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        TextData.model_validate(text_values(Path("raw"), "minilm") | change)
