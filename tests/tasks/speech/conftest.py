import pytest

from ocd_core.artifacts import Artifacts
from tests.support.speech import speech_run


@pytest.fixture(scope="package")
def run(tmp_path_factory: pytest.TempPathFactory) -> Artifacts:
    """All stages on recordings of different lengths; tests must not write there."""
    return speech_run(tmp_path_factory.mktemp("speech"), lengths=(1600, 1750))
