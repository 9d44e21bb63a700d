"""What `torchrun` runs in each of its processes for test_together.py (trainings, then an accident), and how."""

import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from unittest import mock

import torch

from ocd_core.codes.representations.factored import Factored
from ocd_core.diffusion import training
from ocd_core.errors import UserError
from ocd_core.training.processes import Processes, join_processes
from tests.support.arrays import condition, unit_codes
from tests.support.params import denoiser_params, diffusion_params
from tests.support.repository import REPO

EARLY = {"lr": 0.2, "updates": 400, "validate_every": 5, "patience": 3, "ema": 0.0, "clip": 100.0}
ROWS, HELD, BATCH = 20, 9, 11  # no number of them is a multiple of two


def train(processes=None, work_dir=None, progress=None, dropout=0.0, seed=0, first=0, **changes):
    """A short training; its weights, curve, metrics and the updates that it took."""
    values = {"updates": 20, "batch_size": BATCH, "accumulate": 2, "validate_every": 6, "lr_schedule": "cosine"}
    params = diffusion_params(denoiser=denoiser_params(width=16, dropout=dropout), **{**values, **changes})
    codes, cond = unit_codes(ROWS, 6, seed=1 + first), condition(ROWS)
    held = slice(0, HELD)
    taken = []

    def note(update, _text):
        taken.append(update)
        if progress is not None:
            progress(update)

    with mock.patch.object(training, "VALIDATION_ROWS", 36):  # in blocks of 5: the last has a single row
        found = training.train_diffusion(
            codes,
            cond,
            codes[held],
            cond.select(held),
            params,
            Factored(6, 7, True),
            seed,
            note,
            work_dir=work_dir,
            checkpoint_every=4,
            processes=processes or Processes(),
        )
    state = {k: v.clone() for k, v in found.model.state_dict().items()}
    return {"state": state, "curve": found.curve, "metrics": found.metrics, "taken": taken}


def torchrun(*words, cwd):
    """Two processes of a module on the CPU; (exit status, all that they printed)."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", *words]
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPO)}
    process = subprocess.Popen(
        command, cwd=cwd, env=env, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
    )
    try:
        output, _ = process.communicate(timeout=250)
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    return process.returncode, output


def refused(*args, **kwargs):
    try:
        train(*args, **kwargs)
    except UserError as error:
        return str(error)
    raise AssertionError("nothing was refused")


def interrupted(update):
    if update == 10:
        raise InterruptedError


def unlucky(update):
    if update == 3:
        raise ValueError("process 1 is unlucky")


def main(folder: Path) -> None:
    """Writes <folder>/<rank>.pt, then process 1 fails in the middle of a training."""
    with join_processes("cpu") as (processes, device):
        rank = processes.rank
        numbers = torch.arange(3.0) + rank, torch.full((2, 2), 10.0**rank)
        processes.add_up(numbers)
        found = {
            "count": processes.count,
            "device": str(device),
            "added": numbers,
            "of_main": processes.of_main({"rank": float(rank)}),
            "agree": (processes.agree("same"), processes.agree(str(rank))),
            "plain": train(processes),
            "dropout": train(processes, dropout=0.3),
            "early": train(processes, **EARLY),
            "resumed": train(processes, folder / "left by one"),
            "too many": refused(processes, accumulate=6),
            "other data": refused(processes, first=rank),
            "other file": refused(processes, folder / f"of{rank}"),
        }
        with suppress(InterruptedError):
            train(processes, folder / "left by two", progress=interrupted)
        torch.save(found, folder / f"{rank}.pt")
        train(processes, progress=unlucky if rank == 1 else None, updates=10**6)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
