import pytest
import torch

from ocd_core.devices import local_device
from ocd_core.errors import UserError


def test_the_cpu_whatever_the_index():
    assert local_device("cpu", 3) == torch.device("cpu")


def test_each_process_of_a_machine_takes_its_own_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert [local_device("cuda", i) for i in (0, 1)] == [torch.device("cuda", 0), torch.device("cuda", 1)]
    with pytest.raises(UserError, match="process 2 of this machine has no GPU of its own, torch sees 2: start at most"):
        local_device("cuda", 2)


def test_what_is_not_there_is_refused(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    with pytest.raises(UserError, match="torch sees no GPU here"):
        local_device("cuda")
    with pytest.raises(UserError, match="unknown device 'gpu'; known are cpu, cuda"):
        local_device("gpu")
