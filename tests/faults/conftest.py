from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.runs import TUNING
from tests.support.toy import run_stages, write_toy_params


@pytest.fixture(scope="session")
def toy_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with a whole run of the toy, which tests must not change."""
    root = tmp_path_factory.mktemp("whole")
    write_toy_params(root, tuning=TUNING)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        run_stages("illustrate")
    return root


@pytest.fixture
def secret(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A private file elsewhere on this machine, which must stay as it is."""
    path = tmp_path_factory.mktemp("home") / "secret"
    path.write_text("private")
    yield path
    assert path.read_text() == "private"
