"""SIGKILL to the overfit stage: a rerun keeps what is finished and gives the bytes of an undisturbed run."""

import contextlib
import multiprocessing
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from ocd_core.errors import UserError
from ocd_core.store import OverfitStore
from tests.faults.killing import PHASES, die_in, hold
from tests.faults.support import (
    SHARDS,
    assert_undisturbed,
    copy_run,
    finished_shards,
    overfit,
    stage_environment,
    store_of,
    work_of,
)
from tests.support.faulty_stores import spawn_clean


@pytest.mark.parametrize("phase", PHASES)
def test_killed_at(phase: str, ready: Path, undisturbed: dict[str, str], tmp_path: Path) -> None:
    root = copy_run(ready, tmp_path / "run")
    process = spawn_clean(die_in, phase, root)
    process.join(120)
    assert process.exitcode == -signal.SIGKILL
    left = work_of(root) or store_of(root)
    assert store_of(root).exists() == (phase == "after the rename")
    kept, expected = finished_shards(left), PHASES[phase][1]
    assert expected in (None, len(kept))
    overfit(root)
    assert kept.items() <= finished_shards(store_of(root)).items()
    assert_undisturbed(root, undisturbed)


def test_the_command_killed_at_a_random_moment(ready: Path, undisturbed: dict[str, str], tmp_path: Path) -> None:
    root = copy_run(ready, tmp_path / "run")
    command = [sys.executable, "-m", "stages.overfit", "--task", "toy", "--split", "train"]
    process = subprocess.Popen(command, cwd=root, env=stage_environment(), stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not (root / "data" / ".work").exists() and time.monotonic() < deadline:
        time.sleep(0.002)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(random.uniform(0, 0.15))
    process.kill()
    process.wait()
    overfit(root)
    assert_undisturbed(root, undisturbed)


def test_a_second_process_is_refused(ready: Path, tmp_path: Path) -> None:
    root = copy_run(ready, tmp_path / "run")
    context = multiprocessing.get_context("forkserver")
    held, release = context.Event(), context.Event()
    first = spawn_clean(hold, root, held, release)
    assert held.wait(120)
    with pytest.raises(UserError, match=f"train.zarr is being written by process {first.pid} on"):
        overfit(root)
    first.kill()
    first.join()
    overfit(root)  # a dead process holds nothing
    assert len(OverfitStore(store_of(root))) == 48


def test_dvc_takes_a_resumed_store_and_restores_it_from_its_cache(
    ready: Path, undisturbed: dict[str, str], tmp_path: Path
) -> None:
    root = copy_run(ready, tmp_path / "run")
    process = spawn_clean(die_in, "between shards", root)
    process.join(120)
    kept = finished_shards(work_of(root))
    assert len(kept) == 3
    outs = "data/toy/seed0/rank1/overfit/train"
    (root / "dvc.yaml").write_text(
        "stages:\n  overfit:\n    cmd: python -m stages.overfit --task toy --split train\n"
        f"    deps: [data/toy/prepared, data/toy/seed0/base]\n    outs: [{outs}.zarr]\n"
    )
    dvc(root, "init", "--no-scm", "-q")
    dvc(root, "config", "cache.type", "hardlink,copy")
    assert "Running stage 'overfit'" in dvc(root, "repro")
    assert kept.items() <= finished_shards(store_of(root)).items()
    assert_undisturbed(root, undisturbed)
    shutil.rmtree(store_of(root).parent)
    (root / "dvc.lock").unlink()
    assert "is cached - skipping run" in dvc(root, "repro")
    assert_undisturbed(root, undisturbed)


def dvc(root: Path, *words: str) -> str:
    env = stage_environment()
    env |= {"PATH": f"{Path(sys.executable).parent}:{env['PATH']}", "DVC_NO_ANALYTICS": "true"}
    done = subprocess.run(["dvc", *words], cwd=root, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_toy_has_several_shards(finished: Path) -> None:
    assert OverfitStore(store_of(finished)).schema.shard_count == SHARDS
