"""The domain as a whole: the protocol, its loss and metrics in use, ensembles, files for `ocd predict`."""

from pathlib import Path

import pytest

from ocd_core.testing import check_task
from tests.tasks.speech.recordings import task, write_folder

LAST = "separator.rnn_model.cols_grnn.1.block_projection"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "mixtures")


@pytest.mark.parametrize("lengths", [(1600,), (1600, 1750)], ids=["equal lengths", "different lengths"])
def test_the_protocol(tmp_path: Path, lengths: tuple[int, ...]) -> None:
    folder = write_folder(tmp_path / "mixtures", lengths=lengths)
    example = next((folder / "test" / "mix_clean").glob("anna-0*.wav"))
    check_task(task(folder), tmp_path / "check", layers=[LAST], example=example)
