"""The images of a split as `prepare` stores them: as pixels, or encoded as in the source.

Pixels are uint8 in one safetensors file, which is mapped into memory: nothing is decoded twice, but ImageNet at
224 x 224 takes 193 GB. Encoded images are the bytes of the source's own JPEG or PNG files, one after the other in
`<split>.images` in the order of the split, with where each begins in `<split>.safetensors`. They are decoded whenever
they are read. Whoever reads consecutive rows, as overfitting and evaluation do, finds the next ones decoded: a thread
works ahead.

Dims: N samples, C channels, H height, W width.
"""

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ocd_core.errors import UserError
from ocd_core.files import replace_file
from ocd_core.progress import Progress, progress_bar
from ocd_core.samples import Batch, SplitName
from ocd_core.tasks.images.params import ImageData
from ocd_core.tasks.images.sources import EncodedPictures, Pictures, check_labels
from ocd_core.tasks.overlap import row_hashes
from ocd_core.tasks.prepared import split_file, split_tensors
from ocd_core.weights import save_tensors

Hashes = list[tuple[bytes, ...]]


def normalised(x_NCHW: Tensor, data: ImageData) -> Tensor:
    """Pixels in 0..1, minus `mean` and divided by `std`, if the params give them."""
    if data.mean is not None:
        x_NCHW = x_NCHW - torch.tensor(data.mean).view(-1, 1, 1)
    if data.std is not None:
        x_NCHW = x_NCHW / torch.tensor(data.std).view(-1, 1, 1)
    return x_NCHW


class ImageSplit:
    """The images of one split; a batch gives them as the model's float32 input.

    Args:
        read: the images of some rows (int64, (N,)), uint8 (N, C, H, W).
        label_N: int64, of all rows.
    """

    def __init__(self, read: Callable[[Tensor], Tensor], label_N: Tensor, data: ImageData) -> None:
        self._read, self.label_N, self._data = read, label_N, data

    @classmethod
    def of_pixels(cls, pictures: Pictures, data: ImageData) -> "ImageSplit":
        """Images that are decoded."""
        return cls(lambda rows: pictures.image_NCHW[rows], pictures.label_N, data)

    def __len__(self) -> int:
        return len(self.label_N)

    def pixels(self, sample_id: Tensor) -> Tensor:
        """The images of these rows (int64, (N,)), uint8 (N, C, H, W)."""
        return self._read(sample_id)

    def batch(self, sample_id: Tensor) -> Batch:
        """The samples of these rows (int64, (N,)), in this order: input float32 (N, C, H, W), target int64 (N,)."""
        input_NCHW = normalised(self.pixels(sample_id).float() / 255, self._data)
        return Batch((input_NCHW,), self.label_N[sample_id], sample_id)


class ReadAhead:
    """Reads rows; after consecutive ones, a thread already reads as many of those that follow.

    Args:
        read: the values of some rows (int64, (N,)), the samples in the first axis. Only one call runs at a time.
        rows: how many there are.
    """

    def __init__(self, read: Callable[[Tensor], Tensor], rows: int) -> None:
        self._read, self._rows = read, rows
        self._thread = ThreadPoolExecutor(1, "read ahead")
        self._next: tuple[Tensor, Future[Tensor]] | None = None
        self._lock = threading.Lock()

    def __call__(self, rows: Tensor) -> Tensor:
        """The values of these rows."""
        with self._lock:
            if self._next is not None and torch.equal(self._next[0], rows):
                found = self._next[1]
            else:
                found = self._thread.submit(self._read, rows)
            self._next = None
            if len(rows) and torch.equal(rows, torch.arange(int(rows[0]), int(rows[0]) + len(rows))):
                stop = int(rows[-1]) + 1
                following = torch.arange(stop, min(stop + len(rows), self._rows))
                if len(following):
                    self._next = following, self._thread.submit(self._read, following)
        return found.result()


def write_split(
    source: Pictures | EncodedPictures, rows: Tensor, dest: Path, split: SplitName, data: ImageData
) -> Hashes:
    """Write some rows of a source as a split, in this order, and return a hash of each image's pixels.

    Encoded images pass through memory one by one.

    Raises:
        UserError: see `EncodedPictures.select`; nothing is left half-written.
    """
    with progress_bar(f"decode {split}", len(rows)) as progress:
        if data.storage == "encoded":
            assert isinstance(source, EncodedPictures)
            tensors, hashes = _write_encoded(source, rows, _encoded_file(dest, split), progress)
        else:
            chosen = source.select(rows) if isinstance(source, Pictures) else source.select(rows, progress)
            tensors, hashes = {"image": chosen.image_NCHW}, list(row_hashes(chosen.image_NCHW))
        progress(len(rows), "")  # also of images that the source has decoded already
    save_tensors({**tensors, "label": source.label_N[rows], "source_row": rows}, split_file(dest, split))
    return hashes


def _write_encoded(
    source: EncodedPictures, rows: Tensor, path: Path, progress: Progress
) -> tuple[dict[str, Tensor], Hashes]:
    """Write the file of a split's encoded images; returns where each begins, and the hashes."""
    begin = [0]
    hashes: Hashes = []

    def write(partial: Path) -> None:
        with partial.open("wb") as file:
            for row in rows.tolist():
                encoded = source.encoded(row)
                hashes.extend(row_hashes(torch.from_numpy(source.pixels(row, encoded).copy())[None]))
                begin.append(begin[-1] + file.write(encoded))
                progress(len(hashes), "")

    replace_file(path, write)
    return {"begin": torch.tensor(begin)}, hashes


def _encoded_file(prepared: Path, split: SplitName) -> Path:
    return prepared / f"{split}.images"


def open_split(prepared: Path, split: SplitName, data: ImageData) -> ImageSplit:
    """One split of what `write_split` wrote.

    Raises:
        UserError: a file is missing, damaged, or was prepared with other params.
    """
    path, tensors = split_file(prepared, split), split_tensors(prepared, split)
    label_N = tensors.get("label")
    of_images = tensors.get("image" if data.storage == "pixels" else "begin")
    if label_N is None or label_N.dtype != torch.int64 or label_N.dim() != 1 or of_images is None:
        raise _foreign(path, data)
    check_labels(label_N, data.classes, str(path))
    shape = data.shape
    if data.storage == "pixels":
        wanted = (len(label_N), shape.channels, shape.height, shape.width)
        if of_images.dtype != torch.uint8 or tuple(of_images.shape) != wanted:
            raise _foreign(path, data)
        return ImageSplit.of_pixels(Pictures(of_images, label_N), data)
    read = _encoded_rows(_encoded_file(prepared, split), of_images, label_N, data)
    return ImageSplit(ReadAhead(read, len(label_N)), label_N, data)


def _encoded_rows(path: Path, begin_N1: Tensor, label_N: Tensor, data: ImageData) -> Callable[[Tensor], Tensor]:
    """What decodes some rows of a split's file."""
    ends = begin_N1.tolist()
    if not path.is_file() or len(ends) != len(label_N) + 1 or path.stat().st_size != ends[-1]:
        raise UserError(f"{path} is missing or has not the images of {len(label_N)} rows; run the stage prepare again")
    values = np.memmap(path, np.uint8, "r")
    pictures = EncodedPictures(
        label_N,
        data.shape,
        lambda row: values[ends[row] : ends[row + 1]].tobytes(),
        lambda row: f"{path}, row {row}",
    )
    return lambda rows: pictures.select(rows).image_NCHW


def _foreign(path: Path, data: ImageData) -> UserError:
    kind = "" if data.storage == "pixels" else "encoded "
    return UserError(f"{path} does not hold {kind}{data.shape} images with labels; run the stage prepare again")
