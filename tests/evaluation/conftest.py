import functools
from collections.abc import Callable

import pytest

from ocd_core.artifacts import Artifacts
from tests.support.runs import run_of, toy_run
from tests.support.toy import PLANE, PlaneTask


@pytest.fixture(scope="session")
def toy_runs(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Artifacts]:
    """The run of each layer, made once: pytest sets a fixture with params up anew whenever the param changes."""
    return functools.cache(lambda layer: toy_run(tmp_path_factory.mktemp(layer), layer))


@pytest.fixture(scope="session", params=["head", "embed"])
def run(request: pytest.FixtureRequest, toy_runs: Callable[[str], Artifacts]) -> Artifacts:
    """An evaluated toy run; tests must not write there."""
    return toy_runs(request.param)


@pytest.fixture(scope="session")
def plane_run(tmp_path_factory: pytest.TempPathFactory) -> Artifacts:
    """A run with two classes, up to what fits of rows read; tests must not write there."""
    longer = {**PLANE, "base": {**PLANE["base"], "epochs": 20, "patience": 20}}
    return run_of(tmp_path_factory.mktemp("plane"), "plane", longer, "tune_diffusion")


@pytest.fixture
def plane_classes(monkeypatch: pytest.MonkeyPatch) -> None:
    """The task says which class an output stands for."""
    monkeypatch.setattr(PlaneTask, "predicted_class", lambda _self, output: output.argmax(-1))
