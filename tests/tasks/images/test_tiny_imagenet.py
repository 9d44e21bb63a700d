"""TinyImageNet's pictures: grey ones become colour; a small DeiT on them runs through every stage and row."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from ocd_core.tasks.images.params import ImageData
from ocd_core.tasks.images.sources import Shape, tables
from ocd_core.tasks.images.task import ImageClassification
from ocd_core.testing import check_task
from tests.models.test_deit import SIZES, published
from tests.support.pictures import decoded
from tests.tasks.images.test_task import image_data


def few_pictures(shared_data: Path) -> ImageData:
    """20 training and validation pictures and 10 to test."""
    values: dict[str, Any] = {
        "path": str(shared_data / "tiny_imagenet"), "train_files": ["valid.parquet"], "test_files": None,
        "classes": 200, "channels": 3, "height": 64, "width": 64, "train_size": 20, "val_size": 20, "test_size": 10,
    }  # fmt: skip
    return image_data(**values)


def test_grey_pictures_become_colour(shared_data: Path) -> None:
    files = {"valid": ["valid.parquet"]}
    with tables(str(shared_data / "tiny_imagenet"), files, "image", "label", Shape(3, 64, 64), 200) as (parts, _):
        image_NCHW = decoded(parts)["valid"].image_NCHW
    source = pq.read_table(shared_data / "tiny_imagenet" / "valid.parquet").column("image").to_pylist()
    grey = 0
    for row, encoded in enumerate(source):
        picture = Image.open(io.BytesIO(encoded["bytes"]))
        grey += picture.mode == "L"
        if picture.mode == "L" or row % 100 == 0:
            values = np.array(picture)
            wanted = np.stack([values] * 3) if values.ndim == 2 else values.transpose(2, 0, 1)
            assert torch.equal(image_NCHW[row], torch.from_numpy(wanted))
    assert grey == 45  # of 3,000


def test_a_small_deit_keeps_the_protocol(shared_data: Path, tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    source = published(tmp_path / "published", num_hidden_layers=1)
    args = {"classes": 200, "source": source, **SIZES, "layers": 1}
    check_task(ImageClassification(few_pictures(shared_data), "deit", args), tmp_path / "checked")
