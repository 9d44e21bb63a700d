from pathlib import Path

import pytest

from ocd_core.artifacts import Artifacts
from tests.support.runs import toy_run


@pytest.fixture(scope="session", params=["head", "embed"])
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Artifacts:
    """An evaluated toy run; tests must not write there."""
    folder: Path = tmp_path_factory.mktemp(request.param)
    return toy_run(folder, request.param)
