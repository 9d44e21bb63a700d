from pathlib import Path

import pytest

from tests.faults.support import copy_run, file_hashes, make_run, overfit, store_of


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
