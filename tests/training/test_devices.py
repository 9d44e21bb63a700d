import json
import os
import shutil
import subprocess
import sys

import pytest
import torch

from ocd_core.artifacts import Artifacts
from ocd_core.errors import UserError
from ocd_core.training.devices import local_device
from tests.support.repository import REPO
from tests.support.toy import run_stages, write_toy_params
from tests.support.views import views_run


def test_the_cpu_whatever_the_index():
    assert local_device("cpu", 3) == torch.device("cpu")


def test_each_process_of_a_machine_takes_its_own_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert [local_device("cuda", i) for i in (0, 1)] == [torch.device("cuda", 0), torch.device("cuda", 1)]
    with pytest.raises(UserError, match="process 2 of this machine has no GPU, torch sees 2: start at most"):
        local_device("cuda", 2)


def test_convolutions_on_a_gpu_are_in_full_float32_and_repeatable(monkeypatch):
    cudnn = torch.backends.cudnn
    monkeypatch.setattr(cudnn, "allow_tf32", True)  # the tests that follow get the present values back
    monkeypatch.setattr(cudnn, "deterministic", False)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    local_device("cpu")
    assert (cudnn.allow_tf32, cudnn.deterministic) == (True, False)
    local_device("cuda")
    assert (cudnn.allow_tf32, cudnn.deterministic) == (False, True)


def test_what_is_not_there_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(UserError, match="torch sees no GPU here"):
        local_device("cuda")
    with pytest.raises(UserError, match="unknown device 'gpu'; known are cpu, cuda"):
        local_device("gpu")


DEVICE_STAGES = (
    "train_base",
    "overfit",
    "train_diffusion",
    "train_scale",
    "tune_diffusion",
    "train_controls",
    "evaluate",
)
TUNED = {"updates": 4, "validate_every": 2, "batch_size": 8, "lrs": [1e-3], "delta_weight": 0.1}


def with_tuning(values):
    values["tuning"].update(TUNED)
    rows = values["evaluate"]["rows"]
    rows[-1:-1] = [row for row in ("ocd_tuned", "ocd_tuned_ensemble") if row not in rows]
    return values


def evaluated(run: Artifacts) -> dict[str, dict[str, float]]:
    return json.loads((run.evaluation / "metrics.json").read_text())


@pytest.mark.parametrize("case", ["factored", "unet", "views"])
def test_stages_with_a_gpu_leave_nothing_behind_on_the_cpu(case, tmp_path, monkeypatch):
    """On a device that refuses to mix its tensors with the CPU's, and has the CPU's arithmetic: same results."""
    monkeypatch.chdir(tmp_path)
    if case == "views":
        run = views_run(tmp_path, "evaluate", with_tuning)
    else:
        unet = {"name": "unet", "width": 4, "depth": 1, "multipliers": [1], "dropout": 0.1}
        dense = {
            "representation": {"name": "dense", "components": 2, "metric": "euclidean"},
            "denoiser": unet,
            "updates": 4,
            "batch_size": 8,
        }
        write_toy_params(tmp_path, **({"tuning": TUNED} if case == "factored" else {"diffusion": dense}))
        run_stages("evaluate")
        run = Artifacts("toy")
    cpu = evaluated(run)
    for folder in (run.base, run.overfit("train"), run.diffusion, run.scale, run.tuned, run.controls, run.evaluation):
        shutil.rmtree(folder)
    done = subprocess.run(
        [sys.executable, "-m", "tests.support.fake_gpu", run.task, *DEVICE_STAGES],
        check=False,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, "PYTHONPATH": str(REPO)},
    )
    assert done.returncode == 0, done.stdout
    assert "train diffusion: world_size 1, device fakegpu:0" in done.stdout
    found = evaluated(run)
    assert found.keys() == cpu.keys()
    assert {"base", "base_further", "neighbour", "ridge", "hypernetwork", "ocd", "ocd_ensemble", "bound"} <= cpu.keys()
    for row, metrics in cpu.items():
        assert found[row] == pytest.approx(metrics, rel=1e-3, abs=1e-6), row


def test_the_device_that_is_not_there_refuses_to_mix(tmp_path):
    """Else the test above could not fail."""
    code = """
import torch
from tests.support.fake_gpu import fake_gpu
with fake_gpu() as gpu:
    on_cpu, on_gpu = torch.ones(2), torch.ones(2, device=gpu)
    assert (on_gpu + 1).device == gpu and (on_gpu * torch.tensor(2.0)).cpu().tolist() == [2, 2]
    for mix in (lambda: on_gpu + on_cpu, lambda: torch.stack([on_cpu, on_gpu]), lambda: on_gpu.numpy()):
        try:
            mix()
        except RuntimeError:
            continue
        raise SystemExit("mixed")
"""
    subprocess.run([sys.executable, "-c", code], check=True, env={**os.environ, "PYTHONPATH": str(REPO)})
