"""Prepared images are mapped, not loaded: a stage that reads consecutive rows needs no memory for the split."""

import json
import sys
from pathlib import Path

import pytest
import torch

from ocd_core.tasks.images.task import ImageClassification
from tests.tasks.images.test_task import image_data

ROWS, SIDE = 20_000, 64  # 234 MiB of pixels


def in_memory() -> float:
    """The MiB of this process that are in memory, its own and those of mapped files."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmRSS")) / 1024


def write_sparse(path: Path) -> int:
    """A split in the layout of safetensors whose pixels are a hole in the file; returns its size in bytes."""
    image = 3 * SIDE * SIDE * ROWS
    header = json.dumps({
        "label": {"dtype": "I64", "shape": [ROWS], "data_offsets": [0, 8 * ROWS]},
        "source_row": {"dtype": "I64", "shape": [ROWS], "data_offsets": [8 * ROWS, 16 * ROWS]},
        "image": {"dtype": "U8", "shape": [ROWS, 3, SIDE, SIDE], "data_offsets": [16 * ROWS, 16 * ROWS + image]},
    }).encode()  # fmt: skip
    header += b" " * (-len(header) % 8)
    size = 8 + len(header) + 16 * ROWS + image
    with path.open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(size)
    return size


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_split_is_read_row_by_row(tmp_path: Path) -> None:
    size = write_sparse(tmp_path / "train.safetensors")
    task = ImageClassification(image_data(channels=3, height=SIDE, width=SIDE), "mlp", {})
    before = in_memory()
    split = task.open(tmp_path, "train")
    batch = split.batch(torch.arange(5_000, 5_100))
    assert len(split) == ROWS
    assert batch.inputs[0].shape == (100, 3, SIDE, SIDE)
    assert in_memory() - before < 0.2 * size / 2**20
    everything = sum(int(split.batch(rows).inputs[0].sum()) for rows in torch.arange(ROWS).split(500))
    assert everything == 0  # and now it has been read
    assert in_memory() - before > 0.8 * size / 2**20
