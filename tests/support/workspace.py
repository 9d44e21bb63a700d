"""A copy of the repository in which real commands run, on real digits with small params."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from ruamel.yaml import YAML

from ocd_core.evaluation.rows import row_class
from tests.support.params import QUICK_PROBE
from tests.support.repository import REPO, repository_files

NETWORKS = ("regression", "hypernetwork", "hypernetwork_pretrained", "hypernetwork_stochastic")
SMALL = {  # what makes mnist5k quick; everything else stays as users run it
    "base": {"epochs": 2},
    "layer": {"probe": QUICK_PROBE},
    "scoring": {"samples": 16, "draws": 50},
    "diffusion": {"updates": 60, "validate_every": 30},
    "scale": {"updates": 60, "validate_every": 30},
    "controls": {
        "base_further": {"epochs": 1, "patience": 1, "lrs": [1e-4]},
        "ridge": {"rows": 200, "folds": 2, "widths": [1.0], "penalties": [0.1], "metric": "euclidean"},
        **{name: dict(row_class(name).quick) for name in NETWORKS},
    },
    "tuning": {"updates": 4, "draws": 2, "lrs": [1e-3], "batch_size": 16, "validate_every": 2},
    "evaluate": {"draws": [2], "bootstrap": 100},
}


class Workspace:
    """A copy of the repository that commands run in."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.env = {
            **os.environ,
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "OMP_NUM_THREADS": "1",
            "DVC_NO_ANALYTICS": "true",
            "GIT_AUTHOR_NAME": "t", "GIT_AUTHOR_EMAIL": "t@example.com",
            "GIT_COMMITTER_NAME": "t", "GIT_COMMITTER_EMAIL": "t@example.com",
            "COLUMNS": "160",
        }  # fmt: skip
        for name in ("VIRTUAL_ENV", "PYTHONPATH", "PYTHONDONTWRITEBYTECODE"):
            self.env.pop(name, None)

    def run(self, *command: str, ok: bool = True) -> str:
        """Run a command; returns what it printed on both streams."""
        done = subprocess.run(
            command, cwd=self.root, env=self.env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            stdin=subprocess.DEVNULL, check=False,
        )  # fmt: skip
        assert (done.returncode == 0) == ok, f"{' '.join(command)} gave {done.returncode}:\n{done.stdout}"
        return done.stdout


def ran_stages(output: str) -> set[str]:
    """The stages that `dvc repro` says it ran, but for `code`, which always runs."""
    found = {line.split("'")[1] for line in output.splitlines() if line.startswith("Running stage '")}
    return {stage for stage in found if not stage.startswith("code@")}


def edit_params(path: Path, changes: dict[str, dict[str, object]], **values_at_top: object) -> None:
    yaml = YAML()
    values = yaml.load(path)
    for group, keys in changes.items():
        values[group].update(keys)
    values.update(values_at_top)
    with path.open("w") as file:
        yaml.dump(values, file)


def copy_repository(root: Path) -> None:
    """The files of the repository as they are in the working tree, and nothing of the user's."""
    for name in repository_files():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(REPO / name, root / name)


def make_workspace(root: Path) -> Workspace:
    """A committed copy at `root` in which `dvc repro` has run once on mnist5k."""
    copy_repository(root)
    edit_params(root / "params.yaml", {}, tasks=["mnist5k"])
    edit_params(root / "params" / "mnist5k.yaml", SMALL)
    space = Workspace(root)
    space.run("git", "init", "-q")
    space.run("git", "add", "-A")
    space.run("git", "commit", "-qm", "copy")
    space.first_output = space.run("dvc", "repro")
    space.run("git", "add", "dvc.lock")
    space.run("git", "commit", "-qm", "lock")
    return space
