"""A home folder, and what else programs keep notes in, that cannot be written: nothing needs it."""

import subprocess
from pathlib import Path

import pytest

from tests.faults.commands import RUN, environment, make_project
from tests.faults.pipeline import artifacts, pipeline
from tests.faults.support import copy_run

READ_ONLY = "/sys/home"  # nobody can make it, the superuser neither
VARIABLES = ("HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME", "XDG_STATE_HOME", "MPLCONFIGDIR")


def without_home() -> dict[str, str]:
    return environment() | dict.fromkeys(VARIABLES, READ_ONLY)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_project(tmp_path_factory.mktemp("home") / "project")


def test_a_run_and_its_report(project: Path, tmp_path: Path) -> None:
    root = copy_run(project, tmp_path / "run")
    words = [*RUN.words[:-1], "report"]
    done = subprocess.run(words, cwd=root, env=without_home(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr
    assert (root / "reports/toy/index.html").is_file()
    usual = copy_run(project, tmp_path / "usual")
    pipeline(usual)
    made = artifacts(usual)
    assert artifacts(root) == {name: sha for name, sha in made.items() if not name.startswith("code/")}  # of DVC alone


def test_dvc(project: Path, tmp_path: Path) -> None:
    root = copy_run(project, tmp_path / "run")
    words = ["dvc", "repro", "train_base@toy-0"]
    done = subprocess.run(words, cwd=root, env=without_home(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (root / "data/toy/seed0/base/model.safetensors").is_file()
