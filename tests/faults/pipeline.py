"""The whole pipeline of the smallest toy, killed at a fixed or at a random moment, and run again."""

import os
import random
import shutil
import signal
import time
from collections import Counter
from pathlib import Path
from unittest import mock

from ruamel.yaml import YAML

from tests.faults.support import copy_run, file_hashes, run_in
from tests.support.faulty_stores import counted, die, spawn_clean
from tests.support.toy import PLANE, run_stages

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
LAST = "illustrate"  # the report, which takes longer than all other stages, only reads


def make_pipeline(root: Path) -> None:
    (root / "params").mkdir(parents=True)
    with (root / "params" / "toy.yaml").open("w") as file:
        YAML().dump(PLANE, file)


def pipeline(root: Path) -> None:
    run_in(root, lambda: run_stages(LAST))


def artifacts(root: Path) -> dict[str, str]:
    """The files of all artifacts; how long stages took is none of them, and locks may stay."""
    found = file_hashes(root / "data" / "toy")
    return {name: sha for name, sha in found.items() if not name.startswith("seconds/")}


def renames_of(name: str, number: int):
    """Whether a call of `Path.rename` is this artifact's rename of this number (1: the old one goes aside)."""
    calls = 0

    def due(_call: int, source: Path, target: Path) -> bool:
        nonlocal calls
        calls += name in (source.name, Path(target).name)
        return calls == number

    return due


# each kills the process while a stage replaces an artifact that is already there
PHASES = {
    "before the old one goes aside": lambda: mock.patch.object(Path, "rename", die),
    "between the renames": lambda: mock.patch.object(
        Path, "rename", counted(Path.rename, renames_of("diffusion", 1), die_after=True)
    ),
    "before the old one is deleted": lambda: mock.patch.object(
        Path, "rename", counted(Path.rename, renames_of("diffusion", 2), die_after=True)
    ),
}


def die_while_replacing(phase: str, root: Path) -> None:
    from stages import train_diffusion

    with PHASES[phase]():
        run_in(root, lambda: train_diffusion.main("toy"))


def random_kills(kills: int, rng: random.Random, folder: Path) -> Counter[str]:
    """Kill the pipeline at random moments; a rerun without any help must give the bytes of an undisturbed run.

    Returns how often each signal met how many finished artifacts. A run that ended before its kill does not count.
    """
    ready = folder / "ready"
    make_pipeline(ready)
    whole = copy_run(ready, folder / "whole")
    pipeline(whole)
    expected = artifacts(whole)
    first = spawn_clean(pipeline, copy_run(ready, folder / "first"))  # also waits for the server of processes
    first.join()
    start = time.monotonic()
    second = spawn_clean(pipeline, copy_run(ready, folder / "second"))
    second.join()
    length = time.monotonic() - start
    assert artifacts(folder / "second") == expected
    points: Counter[str] = Counter()
    while points.total() < kills:
        root = copy_run(ready, folder / "run")
        process = spawn_clean(pipeline, root)
        process.join(rng.uniform(0, length))
        sent = rng.choice(SIGNALS)
        if process.is_alive():
            os.kill(process.pid, sent)
            process.join(60)
            assert process.exitcode is not None, f"{sent.name} does not end it"
        if process.exitcode:
            points[f"{sent.name}, {len(list(root.glob('data/toy/**/manifest.json')))} artifacts finished"] += 1
        else:
            length *= 0.9
        pipeline(root)
        assert artifacts(root) == expected
        assert not list(root.rglob("*.partial"))
        shutil.rmtree(root)
    return points
