"""One process alone; several are in tests/diffusion/test_together.py."""

import sys

import pytest
import torch

from ocd_core.errors import UserError
from ocd_core.training.processes import Processes, join_processes
from stages._common import run


def test_alone_nothing_is_exchanged():
    with join_processes("cpu") as (processes, device):
        assert (processes, device) == (Processes(0, 1), torch.device("cpu"))
    numbers = [torch.tensor([1.0, 2.0])]
    processes.add_up(numbers)
    assert numbers[0].tolist() == [1, 2]
    assert processes.of_main({"a": 1.0}) == {"a": 1.0}
    assert processes.agree("anything")
    assert processes.is_main


def test_a_batch_has_a_sample_for_each_part():
    Processes(1, 4).check_batch(8, 2, "diffusion")
    with pytest.raises(UserError, match=r"diffusion\.batch_size is 7 for .* 4 processes × 2 parts"):
        Processes(1, 4).check_batch(7, 2, "diffusion")


def test_without_accelerate_the_extra_is_named(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setitem(sys.modules, "accelerate", None)
    with pytest.raises(UserError, match=r"needs accelerate: pip install 'ocd-core\[distributed\]'"):
        join_processes("cpu").__enter__()


def test_a_gpu_for_each_process_of_the_machine(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "4")
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    with pytest.raises(UserError, match="process 1 of this machine has no GPU, torch sees"):
        join_processes("cuda").__enter__()


def test_torchrun_is_refused_by_stages_of_one_process(monkeypatch, capsys):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(SystemExit) as left:
        run(lambda: None)
    assert left.value.code == 1
    assert capsys.readouterr().err.startswith("error: this stage runs in one process")
