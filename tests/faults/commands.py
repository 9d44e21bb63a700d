"""`dvc repro` and `ocd run` of the smallest toy, as users start them: killed with all processes, and run again."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from tests.faults.pipeline import SIGNALS, artifacts, make_pipeline
from tests.faults.support import copy_run, stage_environment
from tests.support.repository import REPO

LAST = "overfit"  # what follows is killed in one process (`pipeline`): each of DVC's takes seconds to start
MATRIX = {"tasks": ["toy"], "seeds": [0], "layer_ranks": [1]}

# what the page on reliability says of DVC's own files: message -> what to remove
HELP = {"JSON structure is corrupted": ".dvc/tmp/rwlock", "'dvc.lock' is invalid": "dvc.lock"}


@dataclass(frozen=True)
class Command:
    """words: what is started."""

    name: str
    words: tuple[str, ...]

    def start(self, root: Path) -> subprocess.Popen[str]:
        """In a process group of its own."""
        return subprocess.Popen(
            self.words, cwd=root, env=environment(), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, text=True, start_new_session=True,
        )  # fmt: skip

    def run(self, root: Path) -> str:
        """To its end, with the help that is documented for DVC's own files; returns which help it needed."""
        output = self._output(root)
        for message, path in HELP.items():
            if output is not None and message in output:
                (root / path).unlink()
                output = self._output(root)
                assert output is None, output
                return f", after rm {path}"
        assert output is None, output
        return ""

    def _output(self, root: Path) -> str | None:
        """What it said, if it failed."""
        process = self.start(root)
        output, _ = process.communicate()
        return output if process.returncode else None


REPRO = Command("dvc repro", ("dvc", "repro", f"{LAST}@toy-0-1-train"))
RUN = Command(
    "ocd run", (sys.executable, "-c", "from ocd_core.cli import main; main()", "run", "toy", "--upto", "illustrate")
)


def environment() -> dict[str, str]:
    found = stage_environment()
    return found | {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{found['PATH']}", "DVC_NO_ANALYTICS": "true"}


def make_project(root: Path) -> Path:
    """The toy with the pipeline as it is for all tasks."""
    make_pipeline(root)
    shutil.copy(REPO / "dvc.yaml", root)
    with (root / "params.yaml").open("w") as file:
        YAML().dump(MATRIX, file)
    subprocess.run(["dvc", "init", "--no-scm", "-q"], cwd=root, env=environment(), check=True)
    return root


def random_kills(command: Command, kills: int, rng: random.Random, folder: Path) -> Counter[str]:
    """Kill the command's process group at random moments; the same command must then give an undisturbed run's bytes.

    Returns how often each signal met how many finished artifacts, and which help the rerun needed. A run that ended
    before its kill does not count.
    """
    ready = make_project(folder / "ready")
    whole = copy_run(ready, folder / "whole")
    start = time.monotonic()
    command.run(whole)
    length = time.monotonic() - start
    expected, lock = artifacts(whole), locked_outputs(whole)
    points: Counter[str] = Counter()
    while points.total() < kills:
        root = copy_run(ready, folder / "run")
        process = command.start(root)
        with suppress(subprocess.TimeoutExpired):
            process.wait(rng.uniform(0, length))
        sent = rng.choice(SIGNALS)
        end_group(process, sent)
        finished = len(list(root.glob("data/toy/**/manifest.json"))) + len(
            list(root.glob("data/toy/**/*.zarr/zarr.json"))
        )
        help_needed = command.run(root)
        if process.returncode:
            points[f"{command.name}, {sent.name}, {finished} artifacts finished{help_needed}"] += 1
            print(f"{points.total()} of {kills}: {sent.name}, {finished} artifacts finished{help_needed}", flush=True)
        else:
            length *= 0.9
        assert artifacts(root) == expected
        assert locked_outputs(root) == lock
        assert not list((root / "data").rglob("*.partial"))
        shutil.rmtree(root)
    return points


def end_group(process: subprocess.Popen[str], sent: signal.Signals) -> None:
    """Send a signal to everything that a command started, and wait until nothing of it runs.

    A SIGINT can get lost, for example while DVC starts a stage, during which it ignores it: like a user, try again.
    """
    for _ in range(10):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, sent)
        with suppress(subprocess.TimeoutExpired):
            process.communicate(timeout=30)
            break
    else:
        raise AssertionError(f"{sent.name} does not end {process.args}")
    with suppress(ProcessLookupError):
        while True:  # what it started ends a little later
            os.killpg(process.pid, 0)
            time.sleep(0.05)


def locked_outputs(root: Path) -> Any:
    """What dvc.lock says of each stage; None without it."""
    path = root / "dvc.lock"
    return YAML(typ="safe").load(path)["stages"] if path.exists() else None
