import os
from pathlib import Path

import pytest
import torch
from hypothesis import settings

from ocd_core.config import Params, load_params, parse_params
from ocd_core.params_files import params_path, read_yaml
from ocd_core.tasks.base import Task
from tests.faults.pipeline import make_pipeline, pipeline
from tests.faults.support import copy_run, file_hashes, make_run, overfit, store_of
from tests.support.commands import in_run, ocd, toy_run  # noqa: F401
from tests.support.repository import REPO
from tests.support.workspace import Workspace, make_workspace

# several workers share the processor: more threads each make all of them slower
torch.set_num_threads(1)
os.environ["OMP_NUM_THREADS"] = "1"

# the same examples in every run, however long each takes on a busy machine
settings.register_profile("same", derandomize=True, deadline=None)
settings.load_profile("same")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The workspace's tests are the longest chain, so they come first; other files fill what is left."""
    items.sort(key=lambda item: "workspace" not in getattr(item, "fixturenames", ()))


def pytest_fixture_setup() -> None:
    """Weights that a fixture draws do not depend on what ran before it."""
    torch.manual_seed(0)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_call() -> None:
    """Nor do those that a test draws."""
    torch.manual_seed(0)


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
    return load_params("mnist5k", REPO)


@pytest.fixture(scope="session")
def mnist5k_prepared(mnist5k_params: Params, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The prepared digits of mnist5k; tests must not write there."""
    folder = tmp_path_factory.mktemp("mnist5k") / "prepared"
    mnist5k_params.build_task().prepare(folder)
    return folder


@pytest.fixture(scope="session")
def mnist_task(shared_data: Path) -> Task:
    """The task mnist with the local folder in place of the hub."""
    path = params_path("mnist", REPO)
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


@pytest.fixture(scope="session")
def plane_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which every stage but the report has run on the smallest toy; copy it."""
    root = tmp_path_factory.mktemp("plane")
    make_pipeline(root)
    pipeline(root)
    return root


@pytest.fixture(scope="session")
def ready(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run before its overfit stage; copy it."""
    root = tmp_path_factory.mktemp("ready")
    make_run(root)
    return root


@pytest.fixture(scope="session")
def finished(ready: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same after it, for the train split; copy it."""
    root = copy_run(ready, tmp_path_factory.mktemp("finished") / "run")
    overfit(root)
    return root


@pytest.fixture(scope="session")
def undisturbed(finished: Path) -> dict[str, str]:
    """The files of the store, path -> sha256."""
    return file_hashes(store_of(finished).parent)
