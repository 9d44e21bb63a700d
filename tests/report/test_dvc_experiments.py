"""Runs of DVC experiments, from a small repository in which DVC has really run one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ocd_core.artifacts import write_json
from ocd_core.errors import UserError
from ocd_core.report.comparison import metric_table, param_table, read_runs
from ocd_core.report.dvc_experiments import Experiment, chosen_run
from tests.support.repository import REPO
from tests.support.tables import result, table

FILES = ("table.json", "config.json", "manifest.json")
RUNS = ["data/toy/seed0/rank1", "data/toy/seed1/rank1"]
SCRIPT = """
import json, sys
from pathlib import Path
from ocd_core.artifacts import Artifacts
from tests.support.tables import write_table
steps = json.loads(Path("params.json").read_text())["steps"]
for folder in sys.argv[1:]:
    text = Path("template.json").read_text().replace("0.4", "0.3" if steps == 5 else "0.4")
    run = Artifacts("toy", int(Path(folder).parts[-2][4:]), 1, Path())
    write_table(run, json.loads(text), {"overfit": {"steps": steps}})
"""
OUTS = "".join(f"\n      - {run}/evaluation/{name}" for run in RUNS for name in FILES)
STAGES = f"""
stages:
  evaluate:
    cmd: python make.py {" ".join(RUNS)}
    params: [{{params.json: [steps]}}]
    outs:{OUTS}
"""


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two runs with three steps in the workspace, and with five in the experiment `longer`."""
    root = tmp_path_factory.mktemp("repository")
    (root / "make.py").write_text(SCRIPT)
    (root / "dvc.yaml").write_text(STAGES.replace("python", sys.executable, 1))
    write_json(root / "params.json", {"steps": 3})
    write_json(root / "template.json", table(results=[result("base", 0.5), result("ocd", 0.4)]))
    (root / ".gitignore").write_text("/data\n")

    def call(*command: str) -> None:
        env = {**os.environ, "PYTHONPATH": str(REPO)}
        done = subprocess.run(command, cwd=root, env=env, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr + done.stdout

    def dvc(*arguments: str) -> None:
        call(sys.executable, "-m", "dvc", *arguments)

    call("git", "init", "-q")
    call("git", "config", "user.email", "team@example.org")
    call("git", "config", "user.name", "Team")
    dvc("init", "-q")
    dvc("config", "core.analytics", "false")
    dvc("repro", "-q")
    call("git", "add", ".")
    call("git", "commit", "-qm", "three steps")
    dvc("exp", "run", "-q", "-n", "longer", "-S", "params.json:steps=5")
    call("git", "checkout", "-q", "--", ".")
    dvc("checkout", "-q")
    return root


@pytest.fixture(autouse=True)
def here(repository: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(repository)


def test_a_run_beside_the_same_run_of_an_experiment() -> None:
    runs = read_runs([RUNS[0], "longer"])
    assert [run.name for run in runs] == ["toy/seed0/rank1", "longer"]
    rows = metric_table(runs)[1]
    assert [row[1:] for row in rows] == [["0.500", "0.500"], ["0.400* (-0.100)", "0.300* (-0.100)"]]
    assert param_table(runs)[1] == [["overfit.steps", "3", "5"]]


def test_a_run_of_an_experiment_and_of_a_commit() -> None:
    assert Experiment.named("longer").runs() == RUNS
    first, second = read_runs([f"{RUNS[1]}@longer", f"{RUNS[1]}@HEAD"])
    assert (first.config["overfit.steps"], second.config["overfit.steps"]) == (5, 3)


def test_what_is_wrong() -> None:
    with pytest.raises(UserError, match="nothing is neither a run's folder nor a DVC experiment"):
        read_runs(["nothing", RUNS[0]])
    with pytest.raises(UserError, match=r"longer has 2 evaluated runs; name one, such as data/toy/seed0/rank1@longer"):
        chosen_run(Experiment.named("longer"), [])
    with pytest.raises(UserError, match=r"no evaluated run data/toy/seed9/rank1; it has data/toy/seed0/rank1, data"):
        read_runs([RUNS[0], "data/toy/seed9/rank1@longer"])
    with pytest.raises(UserError, match="different runs"):
        read_runs(["longer", "longer"])


def test_files_that_are_not_in_the_cache(repository: Path) -> None:
    cache = repository / ".dvc" / "cache"
    cache.rename(repository / "elsewhere")
    try:
        with pytest.raises(UserError, match=r"DVC cannot get .*table\.json of experiment longer.*dvc exp pull"):
            Experiment.named("longer").read_run(RUNS[0])
    finally:
        (repository / "elsewhere").rename(cache)


def test_outside_of_a_repository(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    with pytest.raises(UserError, match=r"git for-each-ref: .*not a git repository"):
        Experiment.named("longer")
