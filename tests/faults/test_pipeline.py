"""The pipeline killed at three fixed moments; random ones are for `make faults`."""

import signal
from importlib import import_module
from pathlib import Path

import pytest

from ocd_core.artifacts import Artifacts
from ocd_core.verify import verify
from tests.faults.pipeline import PHASES, artifacts, die_while_replacing
from tests.faults.support import copy_run, run_in
from tests.support.faulty_stores import spawn_clean


@pytest.mark.parametrize("phase", PHASES)
def test_killed_while_an_artifact_is_replaced(phase: str, plane_run: Path, tmp_path: Path) -> None:
    """The old artifact or the new one is whole at any time, and the stage alone mends the rest."""
    root = copy_run(plane_run, tmp_path / "run")
    expected = artifacts(root)
    process = spawn_clean(die_while_replacing, phase, root)
    process.join(120)
    assert process.exitcode == -signal.SIGKILL
    run = Artifacts("toy", root=root)
    beside = run.diffusion.with_name(".diffusion.ocd-replaced")
    assert verify(str(run.diffusion if run.diffusion.exists() else beside)) == []
    run_in(root, lambda: import_module("stages.train_diffusion").main("toy"))
    assert artifacts(root) == expected
    assert not list(root.rglob("*.partial"))
    assert not beside.exists()


def test_a_run_without_the_artifact_names_the_command(plane_run: Path, tmp_path: Path) -> None:
    root = copy_run(plane_run, tmp_path / "run")
    process = spawn_clean(die_while_replacing, "between the renames", root)
    process.join(120)
    (problem,) = verify(str(Artifacts("toy", root=root).rank_dir))
    assert problem.what.endswith("diffusion is missing")
    assert problem.remedy == "run 'python -m stages.train_diffusion --task toy --seed 0 --rank 1'"
