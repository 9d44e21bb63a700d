import numpy as np
import pytest
import torch

from ocd_core.errors import UserError
from ocd_core.training.checkpoints import read_checkpoint, write_checkpoint

CPU = torch.device("cpu")


@pytest.fixture
def values():
    return {"weights": [torch.arange(6.0).view(2, 3), torch.ones(3, dtype=torch.float64)], "update": 7, "best": 0.25}


def test_what_is_written_is_read(tmp_path, values):
    write_checkpoint(tmp_path / "deep" / "c.pt", values)
    found = read_checkpoint(tmp_path / "deep" / "c.pt", CPU)
    assert (found["update"], found["best"]) == (7, 0.25)
    for mine, theirs in zip(found["weights"], values["weights"], strict=True):
        assert torch.equal(mine, theirs)
        assert mine.dtype == theirs.dtype


def test_every_flipped_bit_is_noticed(tmp_path, values):
    path = tmp_path / "c.pt"
    write_checkpoint(path, values)
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(200):
        data = bytearray(whole)
        data[int(rng.integers(len(data)))] ^= 1 << int(rng.integers(8))
        path.write_bytes(data)
        with pytest.raises(UserError, match=r"c\.pt is damaged; delete it to start over"):
            read_checkpoint(path, CPU)


@pytest.mark.parametrize("keep", [0, 10, 32, 200, -1])
def test_a_part_of_it_is_noticed(tmp_path, values, keep):
    path = tmp_path / "c.pt"
    write_checkpoint(path, values)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(UserError, match="damaged"):
        read_checkpoint(path, CPU)


def test_a_file_of_torch_itself_is_none_of_ours(tmp_path, values):
    torch.save(values, tmp_path / "c.pt")
    with pytest.raises(UserError, match="damaged"):
        read_checkpoint(tmp_path / "c.pt", CPU)


def test_a_write_that_fails_leaves_the_old_one(tmp_path, values, monkeypatch):
    path = tmp_path / "c.pt"
    write_checkpoint(path, values)
    before = path.read_bytes()
    with pytest.raises(Exception, match=r"pickle|local object"):
        write_checkpoint(path, {**values, "update": lambda: 0})
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["c.pt"]
