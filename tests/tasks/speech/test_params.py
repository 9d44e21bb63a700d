"""The params group `data`."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from ocd_core.errors import UserError
from ocd_core.tasks.speech.task import SpeechSeparation
from tests.tasks.speech.recordings import NETWORK, speech_data, task


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("sources", 1),
        ("sample_rate", 0),
        ("train_seconds", 0.0),
        ("train_size", 0),
        ("dynamic_mixing", "no"),
        ("rate", 8000),
    ],
)
def test_impossible_values(key: str, value: Any) -> None:
    with pytest.raises(ValidationError, match=key):
        speech_data(Path("x"), **{key: value})


def test_network_and_data_have_the_same_number_of_sources() -> None:
    with pytest.raises(UserError, match=r"data\.sources is 3, but base\.model\.args\.sources is 2; make them the same"):
        SpeechSeparation(speech_data(Path("x"), sources=3), "gated_lstm", NETWORK)


def test_parts_must_differ(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="must be three different parts"):
        task(Path("x"), val_part="train").prepare(tmp_path)
