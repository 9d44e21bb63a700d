"""Interrupted trainings, also by SIGKILL in the middle of a save: the result has the same bits."""

import os
import signal
import subprocess
import sys

import pytest
import torch

from ocd_core.codes.representations.factored import Factored
from ocd_core.diffusion.training import train_diffusion
from tests.support.arrays import condition, unit_codes
from tests.support.params import denoiser_params, diffusion_params


def train(work_dir=None, progress=None, **changes):
    params = diffusion_params(
        updates=18,
        validate_every=5,
        batch_size=8,
        accumulate=2,
        lr_schedule="cosine",
        warmup=3,
        denoiser=denoiser_params(width=16, dropout=0.2),
        **changes,
    )
    codes, cond = unit_codes(20, 6), condition(20)
    held = slice(0, 8)
    return train_diffusion(
        codes,
        cond,
        codes[held],
        cond.select(held),
        params,
        Factored(6, 7, True),
        0,
        progress,
        work_dir=work_dir,
        checkpoint_every=4,
    )


def same(a, b):
    return a.curve == b.curve and all(
        torch.equal(p, q) for p, q in zip(a.model.state_dict().values(), b.model.state_dict().values(), strict=True)
    )


KILLED = """
import os, signal, sys
from ocd_core.training import checkpoints
from tests.diffusion.test_resume import train

saves, real_replace, real_fsync = [], checkpoints.replace_file, os.fsync

def die():
    os.kill(os.getpid(), signal.SIGKILL)

def replace_file(path, write):
    def written(partial):
        write(partial)
        saves.append(partial)
        if sys.argv[2] == "writing" and len(saves) == 3:
            os.truncate(partial, partial.stat().st_size // 2)
            die()

    real_replace(path, written)

def fsync(fd):
    real_fsync(fd)
    if sys.argv[2] == "renaming" and len(saves) == 3:
        die()

checkpoints.replace_file, os.fsync = replace_file, fsync
train(__import__("pathlib").Path(sys.argv[1]))
"""


@pytest.mark.parametrize("phase", ["writing", "renaming"])
def test_sigkill_during_a_save(tmp_path, phase):
    died = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path), phase], env={**os.environ, "PYTHONPATH": "."}, check=False
    )
    assert died.returncode == -signal.SIGKILL
    assert (tmp_path / "checkpoint.pt.partial").exists()
    done = []
    resumed = train(tmp_path, lambda k, _: done.append(k))
    assert done[0] == 9  # the second checkpoint was whole, at update 8
    assert same(resumed, train())
    assert sorted(p.name for p in tmp_path.iterdir()) == ["checkpoint.pt"]


def test_a_checkpoint_of_other_code_is_not_used(tmp_path, monkeypatch):
    train(tmp_path)
    done = []
    monkeypatch.setattr("ocd_core.diffusion.training.code_of", lambda _module, _values: {"changed": ""})
    train(tmp_path, lambda k, _: done.append(k))
    assert done[0] == 1


def test_checkpoints_of_other_params_or_data_are_not_used(tmp_path):
    train(tmp_path)
    done = []
    other = train(tmp_path, lambda k, _: done.append(k), clip=0.5)
    assert done[0] == 1
    assert same(other, train(clip=0.5))
    done.clear()
    again = train(tmp_path, lambda k, _: done.append(k), clip=0.5)
    assert done == []  # the finished run is taken as it is
    assert same(again, other)


def test_only_a_checkpoint_of_the_same_run_is_resumed(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, stop_at(7))
    assert not train(tmp_path, ema=0.5).resumed, "other params: it starts over"
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path, stop_at(7))
    assert train(tmp_path).resumed


def stop_at(last):
    def progress(update, _note):
        if update == last:
            raise KeyboardInterrupt

    return progress
