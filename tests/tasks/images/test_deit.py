"""A small DeiT on images, from published weights of other classes, through every stage and row."""

from pathlib import Path
from typing import Any

import pytest

from ocd_core.tasks.images.task import ImageClassification, ImageData
from ocd_core.testing import check_task
from tests.models.test_deit import SIZES, published
from tests.tasks.images.test_task import image_data

pytest.importorskip("transformers")


def real_pictures(shared_data: Path, **changes: Any) -> ImageData:
    """40 training, 20 validation and 20 test pictures of TinyImageNet, grey ones among them."""
    values: dict[str, Any] = {
        "path": str(shared_data / "tiny_imagenet"), "test_files": ["valid.parquet"], "classes": 200, "channels": 3,
        "height": 64, "width": 64, "train_size": 40, "val_size": 20, "test_size": 20,
    }  # fmt: skip
    return image_data(**(values | changes))


def test_the_task_keeps_the_protocol(shared_data: Path, tmp_path: Path) -> None:
    source = published(tmp_path / "published", num_hidden_layers=1)
    args = {"classes": 200, "source": source, **SIZES, "layers": 1}
    check_task(ImageClassification(real_pictures(shared_data), "deit", args), tmp_path / "checked")
