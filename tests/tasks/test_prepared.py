"""Prepared files: read back, and named if they are missing or damaged."""

from pathlib import Path

import pytest
import torch

from ocd_core.errors import UserError
from ocd_core.tasks.prepared import need_file, split_file, split_tensors
from ocd_core.weights import save_tensors


def test_what_was_saved_is_read(tmp_path: Path) -> None:
    save_tensors({"x": torch.arange(3)}, split_file(tmp_path, "val"))
    assert (tmp_path / "val.safetensors").is_file()
    assert split_tensors(tmp_path, "val")["x"].tolist() == [0, 1, 2]
    assert need_file(tmp_path / "val.safetensors") == tmp_path / "val.safetensors"


def test_a_file_that_is_missing_or_damaged(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"test\.safetensors is missing; run the stage prepare first"):
        split_tensors(tmp_path, "test")
    (tmp_path / "test.safetensors").write_bytes(b"no")
    with pytest.raises(UserError, match=r"test\.safetensors"):
        split_tensors(tmp_path, "test")
