"""The module `ocd_core.running.following`."""

from pathlib import Path

import pytest

from ocd_core.running.following import with_bar
from ocd_core.training.processes import Processes


@pytest.mark.parametrize(("rank", "shown"), [(0, True), (1, False)])
def test_only_the_main_process_shows_a_bar(rank: int, shown: bool, tmp_path: Path, capsys) -> None:
    with with_bar("train it", 3, tmp_path, Processes(rank, 2)) as (progress, on_row):
        assert (progress is not None) == (on_row is not None) == shown
        if progress is not None and on_row is not None:
            progress(3, "loss 1")
            on_row({"update": 3.0})
    assert ("train it" in capsys.readouterr().err) == shown
    assert not list(tmp_path.iterdir())
