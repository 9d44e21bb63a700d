"""A user's checkout is seldom clean: what lies in it must not reach the tests."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.repository import REPO, repository_files
from tests.support.workspace import copy_repository

# of the tests that read the repository's files, the quick ones
QUICK = (
    "tests/test_config.py",
    "tests/test_docs.py",
    *(f"tests/experiments/test_{name}.py" for name in ("experiments", "few_shots", "tables", "verdicts")),
    "tests/pipeline/test_dvc_yaml.py",
)
SLOW = "layer_scores or every_setting or a_preset_in_the_search"
LITTER = {
    "params/mine.yaml": "domain: [nothing",
    "params/mnist5k_paper.yaml": "domain: images\n",
    "dvc.lock": "schema: '2.0'\nstages: {}\n",
    "data/mnist5k/prepared/train.safetensors": "",
    "data/.work/left.partial": "",
    "reports/mnist5k/table.md": "",
    "experiments/axes/mine.yaml": "[",
    "docs/notes.md": "```bash\nrm -rf everything\n```\n[nowhere](nowhere.md)\n",
    "mytask.py": "raise SystemExit\n",
    "ocd_core/tasks/mine/__init__.py": "raise SystemExit\n",
}


def git(*words: str, cwd: Path) -> None:
    subprocess.run(["git", *words], cwd=cwd, check=True, capture_output=True)


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A shallow clone in a folder with blanks and umlauts, dirty, with a user's own files in it."""
    root = tmp_path_factory.mktemp("Übung mit Leerzeichen") / "ocd größer"
    if (REPO / ".git").exists():
        git("clone", "-q", "--depth", "1", REPO.as_uri(), str(root), cwd=REPO)
    for name in subprocess.run(["git", "ls-files", "-z"], cwd=root, capture_output=True, text=True).stdout.split("\0"):
        if name and name not in repository_files():
            (root / name).unlink()
    copy_repository(root)  # as it is in the working tree, with what is new there or gone
    if (root / ".git").exists():
        git("add", "-A", cwd=root)
    for name, text in LITTER.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    (root / "README.md").write_text((REPO / "README.md").read_text() + "\nA line of mine.\n")
    return root


def run(checkout: Path, *words: str) -> str:
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTEST_ADDOPTS")}
    environment = {k: v for k, v in environment.items() if not k.startswith("PYTEST_XDIST")}
    done = subprocess.run(
        [sys.executable, *words], cwd=checkout, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-2000:]
    return done.stdout


def test_a_copy_has_the_repositorys_files_alone(checkout: Path, tmp_path: Path) -> None:
    program = "import sys, pathlib, tests.support.workspace as w; w.copy_repository(pathlib.Path(sys.argv[1]))"
    run(checkout, "-c", program, str(tmp_path / "copy"))
    copied = {p.relative_to(tmp_path / "copy").as_posix() for p in (tmp_path / "copy").rglob("*") if p.is_file()}
    if not (REPO / ".git").exists():  # nobody knows then what is whose, but what the pipeline writes
        assert not {"dvc.lock", "data/.work/left.partial", "reports/mnist5k/table.md"} & copied
        return
    assert copied == set(repository_files())
    assert "A line of mine." in (tmp_path / "copy" / "README.md").read_text()


def test_the_tests_that_read_the_repository_pass(checkout: Path) -> None:
    if not (REPO / ".git").exists():
        for name in ("params/mine.yaml", "experiments/axes/mine.yaml", "docs/notes.md"):
            (checkout / name).unlink()
    output = run(checkout, "-m", "pytest", "-q", "-p", "no:cacheprovider", *QUICK, "-k", f"not ({SLOW})")
    assert " passed" in output
    assert "failed" not in output
