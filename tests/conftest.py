import os
from pathlib import Path

import pytest

from ocd_core.config import Params, load_params, parse_params
from ocd_core.params_files import params_path, read_yaml
from ocd_core.tasks.base import Task
from tests.workspace import Workspace, make_workspace

REPOSITORY = Path(__file__).parents[1]


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real data sets and released checkpoints, where the machine has one."""
    folder = os.environ.get("OCD_TEST_DATA")
    if not folder:
        pytest.skip("OCD_TEST_DATA is not set: tests on the real data sets do not run")
    path = Path(folder)
    assert path.is_dir(), f"OCD_TEST_DATA={folder} is not a folder"
    return path


@pytest.fixture(scope="session")
def mnist5k_params() -> Params:
    return load_params("mnist5k", REPOSITORY)


@pytest.fixture(scope="session")
def mnist5k_prepared(mnist5k_params: Params, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The prepared digits of mnist5k; tests must not write there."""
    folder = tmp_path_factory.mktemp("mnist5k") / "prepared"
    mnist5k_params.build_task().prepare(folder)
    return folder


@pytest.fixture(scope="session")
def mnist_task(shared_data: Path) -> Task:
    """The task mnist with the local folder in place of the hub."""
    path = params_path("mnist", REPOSITORY)
    values = read_yaml(path)
    values["data"]["path"] = str(shared_data / "mnist")
    return parse_params(values, str(path)).build_task()


@pytest.fixture(scope="session")
def mnist_prepared(mnist_task: Task, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The prepared data of mnist, all 70,000 digits; tests must not write there."""
    folder = tmp_path_factory.mktemp("mnist") / "prepared"
    mnist_task.prepare(folder)
    return folder


@pytest.fixture(scope="session")
def workspace(tmp_path_factory: pytest.TempPathFactory) -> Workspace:
    """A copy of the repository in which the default task has run once, with small params."""
    return make_workspace(tmp_path_factory.mktemp("workspace") / "ocd")
