import functools
from collections.abc import Callable

import pytest

from ocd_core.artifacts import Artifacts
from tests.support.runs import toy_run


@pytest.fixture(scope="session")
def toy_runs(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Artifacts]:
    """The run of each layer, made once: pytest sets a fixture with params up anew whenever the param changes."""
    return functools.cache(lambda layer: toy_run(tmp_path_factory.mktemp(layer), layer))


@pytest.fixture(scope="session", params=["head", "embed"])
def run(request: pytest.FixtureRequest, toy_runs: Callable[[str], Artifacts]) -> Artifacts:
    """An evaluated toy run; tests must not write there."""
    return toy_runs(request.param)
