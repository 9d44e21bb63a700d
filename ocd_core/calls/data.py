"""Data that is given in Python: tensors, or a map-style Dataset, read by batch once and kept in files.

The files are mapped into memory, so that data may be larger than memory, and every later reading gives the same rows,
even if the Dataset augments them at random.

Dims: N samples.
"""

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from ocd_core.artifacts import read_json, write_json
from ocd_core.calls.identity import tensor_digest
from ocd_core.errors import UserError
from ocd_core.files import is_shortage
from ocd_core.npy import ArrayFile
from ocd_core.samples import Batch, Rows, spread_rows

_BATCH = 256
_SEEN = 16  # rows of a Dataset that its fingerprint is taken from
_LABELS = ("labels", "label", "target")
_STRUCTURE = "structure.json"


@dataclass(frozen=True)
class Parts:
    """Tensors, and how they were given. names: the keys of a dict, or None. single: one tensor alone."""

    tensors: tuple[Tensor, ...]
    names: tuple[str, ...] | None
    single: bool

    @classmethod
    def of(cls, value: Any, what: str) -> "Parts":
        """The tensors of a tensor or array, of a tuple or list of them, or of a dict.

        Raises:
            UserError: it holds something that is no tensor.
        """
        if isinstance(value, Mapping):
            tensors = tuple(_tensor(part, f"{what}[{name!r}]") for name, part in value.items())
            return cls(tensors, tuple(value), False)
        if isinstance(value, tuple | list) and any(isinstance(part, Tensor | np.ndarray) for part in value):
            return cls(tuple(_tensor(part, f"{what}[{i}]") for i, part in enumerate(value)), None, False)
        return cls((_tensor(value, what),), None, True)

    def select(self, rows: Rows) -> "Parts":
        """The same for some of the samples."""
        return Parts(tuple(x[rows] for x in self.tensors), self.names, self.single)

    def restored(self, tensors: tuple[Tensor, ...]) -> Any:
        """Other tensors in the same form."""
        return restored(tensors, self.names, self.single)


def restored(tensors: tuple[Tensor, ...], names: tuple[str, ...] | None, single: bool) -> Any:
    """Tensors in the form that `Parts` describes."""
    if names is not None:
        return dict(zip(names, tensors, strict=True))
    return tensors[0] if single else tensors


def _tensor(value: Any, what: str) -> Tensor:
    try:
        tensor = value.detach().cpu() if isinstance(value, Tensor) else torch.as_tensor(value)
    except (TypeError, ValueError, RuntimeError) as error:
        if is_shortage(error):
            raise
        raise UserError(f"{what}: a {type(value).__name__} is not a tensor") from error
    return tensor.float() if tensor.is_floating_point() else tensor


@dataclass(frozen=True)
class Source:
    """One split as it was given; read in order, batch by batch.

    what: its name, for messages. workers: processes that read a Dataset.
    """

    what: str
    data: Any
    workers: int = 0
    collate: Callable[[list[Any]], Any] | None = None
    in_memory: bool = field(default=False)

    @classmethod
    def of(cls, data: Any, what: str, workers: int = 0) -> "Source":
        """A pair (inputs, targets), a map-style Dataset of such pairs, or a DataLoader of one.

        Raises:
            UserError: it is something else, or empty, or inputs and targets differ in length.
        """
        collate = None
        if isinstance(data, DataLoader):
            collate, workers, data = data.collate_fn, workers or data.num_workers, data.dataset
        if isinstance(data, tuple) and len(data) == 2:
            return cls._of_pair(data, what)
        if isinstance(data, IterableDataset) or not (hasattr(data, "__getitem__") and hasattr(data, "__len__")):
            raise UserError(
                f"{what}: give (inputs, targets) or a map-style torch Dataset (with __len__ and __getitem__), not "
                f"{type(data).__name__}"
            )
        if len(data) == 0:
            raise UserError(f"{what}: it has no samples")
        return cls(what, data, workers, collate)

    @classmethod
    def _of_pair(cls, data: Any, what: str) -> "Source":
        inputs, target = Parts.of(data[0], f"{what}: inputs"), Parts.of(data[1], f"{what}: targets")
        counts = {len(part) if part.dim() else 0 for part in (*inputs.tensors, *target.tensors)}
        if len(counts) > 1:
            raise UserError(
                f"{what}: inputs and targets have different lengths ({', '.join(map(str, sorted(counts)))})"
            )
        if counts == {0}:
            raise UserError(f"{what}: it has no samples")
        return cls(what, (inputs, target), in_memory=True)

    def __len__(self) -> int:
        return len(self.data[0].tensors[0]) if self.in_memory else len(self.data)

    def batches(self, size: int = _BATCH) -> Iterator[tuple[Parts, Parts]]:
        """(inputs, targets) of all samples, in order.

        Raises:
            UserError: samples differ in shape, an item is no (input, target), a collate_fn drops rows, or a worker
                process ended.
        """
        if self.in_memory:
            inputs, target = self.data
            for start in range(0, len(self), size):
                rows = slice(start, start + size)
                yield inputs.select(rows), target.select(rows)
            return
        loader = DataLoader(self.data, batch_size=size, num_workers=self.workers, collate_fn=self.collate)
        items, done = iter(loader), 0
        while True:
            try:
                item = next(items)
            except StopIteration:
                return
            except (RuntimeError, TypeError) as error:
                if "DataLoader worker" in str(error):
                    reason = " ".join(str(error).split())[:150]
                    raise UserError(
                        f"{self.what}: a worker process of the DataLoader ended ({reason}); if memory, or the shared "
                        "memory of a container (/dev/shm, docker run --shm-size), is short, give a DataLoader with "
                        "fewer workers, or none"
                    ) from error
                if is_shortage(error) or (isinstance(error, RuntimeError) and "size" not in str(error)):
                    raise
                raise UserError(
                    f"{self.what}: samples cannot be put into one batch ({' '.join(str(error).split())[:150]}); pad "
                    "them to one shape, or give a DataLoader with a collate_fn that does"
                ) from error
            inputs, target = self._split(item)
            expected = min(size, len(self) - done)
            for part in (*inputs.tensors, *target.tensors):
                found = len(part) if part.dim() else 0
                if found != expected:
                    raise UserError(
                        f"{self.what}: the collate_fn made {found} samples of the {expected} rows from {done} on; "
                        "leave rows out of the Dataset itself, and give a collate_fn that keeps all"
                    )
            done += expected
            yield inputs, target

    def rows(self, rows: Tensor) -> tuple[Parts, Parts]:
        """(inputs, targets) of a few samples, int64 (n,), read in this process.

        Raises:
            UserError: see `batches`; rows in its messages count within these samples.
        """
        if self.in_memory:
            inputs, target = self.data
            return inputs.select(rows), target.select(rows)
        few = Source(self.what, [self.data[row] for row in rows.tolist()], collate=self.collate)
        return next(few.batches())

    def _split(self, item: Any) -> tuple[Parts, Parts]:
        if isinstance(item, Mapping):
            label = next((name for name in _LABELS if name in item), None)
            if label is not None:
                rest = {name: value for name, value in item.items() if name != label}
                return Parts.of(rest, f"{self.what}: inputs"), Parts.of(item[label], f"{self.what}: {label}")
        elif isinstance(item, tuple | list) and len(item) >= 2:
            inputs = item[0] if len(item) == 2 else tuple(item[:-1])
            return Parts.of(inputs, f"{self.what}: inputs"), Parts.of(item[-1], f"{self.what}: targets")
        raise UserError(
            f"{self.what}: each item must be (input, target), or a dict with the target under 'labels' or 'label', not "
            f"a {type(item).__name__}"
        )

    def digest(self) -> str:
        """A fingerprint: of all values in memory, or of a Dataset's length and some of its rows.

        A Dataset that reads a row differently each time (random augmentation) counts by its length alone.
        """
        if self.in_memory:
            return tensor_digest(*self.data[0].tensors, *self.data[1].tensors)
        found = hashlib.blake2b(str(len(self)).encode(), digest_size=16)
        rows = spread_rows(len(self), _SEEN)
        seen = [[self._row(row) for row in torch.split(rows, 1)] for _ in range(2)]
        if seen[0] == seen[1]:
            found.update("".join(seen[0]).encode())
        return found.hexdigest()

    def _row(self, row: Tensor) -> str:
        inputs, target = self.rows(row)
        return tensor_digest(*inputs.tensors, *target.tensors)


def write_split(source: Source, folder: Path, classes: int | None = None) -> None:
    """Read a split once and write it: one file a tensor.

    Args:
        classes: how many, if the target is a class.

    Raises:
        UserError: see `Source.batches`; or a number is NaN or infinite, or a class is none, or a batch has other
            tensors or another dtype than the first (the message names the row); or the disk is full.
    """
    folder.mkdir(parents=True)
    files: list[ArrayFile] = []
    first: dict[str, Any] = {}
    done, count = 0, len(source)
    with ExitStack() as stack:
        for inputs, target in source.batches():
            arrays = [x.numpy() for x in (*inputs.tensors, *target.tensors)]
            if not files:
                files = [stack.enter_context(ArrayFile(folder / f"{i}.npy", x.dtype, (count, *x.shape[1:])))
                         for i, x in enumerate(arrays)]  # fmt: skip
                first = _form(inputs, target)
                write_json(folder / _STRUCTURE, first)
            form = _form(inputs, target)
            if form != first:
                raise UserError(
                    f"{source.what}: the batch from row {done} on has other tensors, or other names, than those before "
                    "it; give a collate_fn that makes the same of all rows"
                )
            if classes is not None:
                refuse_label(target.tensors[0].numpy(), classes, source.what, range(done, count))
            for file, x in zip(files, arrays, strict=True):
                if x.shape[1:] != file.shape[1:]:
                    raise UserError(
                        f"{source.what}: samples from row {done} on have shape {x.shape[1:]}, earlier ones "
                        f"{file.shape[1:]}; pad them to one shape"
                    )
                _refuse_cast(x, file.dtype, source.what, done)
                refuse_nan(x, source.what, range(done, count))
                file.append(x)
            done += len(arrays[0])


def _form(inputs: Parts, target: Parts) -> dict[str, Any]:
    return {part: {"names": p.names, "single": p.single, "count": len(p.tensors)}
            for part, p in (("inputs", inputs), ("target", target))}  # fmt: skip


def _refuse_cast(x: npt.NDArray[Any], dtype: np.dtype[Any], what: str, first: int) -> None:
    """Refuse numbers that another dtype would change; `first` is the row of the first one."""
    if x.dtype != dtype and not (np.can_cast(x.dtype, dtype, "same_kind") and np.array_equal(x.astype(dtype), x)):
        raise UserError(
            f"{what}: samples from row {first} on are {x.dtype}, which {dtype}, the dtype of earlier ones, cannot "
            "hold; give one dtype to all"
        )


def refuse_nan(x: npt.NDArray[Any], what: str, rows: Sequence[int]) -> None:
    """Refuse numbers that no network can use.

    Args:
        x: some samples, (N, ...). rows: which they are, for the message; it may go on beyond them.

    Raises:
        UserError: names the first bad row.
    """
    if x.dtype.kind != "f":
        return
    bad_N = ~np.isfinite(x).reshape(len(x), -1).all(1)
    if bad_N.any():
        raise UserError(f"{what}: row {rows[int(bad_N.argmax())]} holds NaN or infinite numbers")


def refuse_label(y: npt.NDArray[Any], classes: int, what: str, rows: Sequence[int]) -> None:
    """Refuse classes that a network does not have.

    Args:
        y: some samples, (N, ...). rows: as for `refuse_nan`.

    Raises:
        UserError: names the first bad row.
    """
    bad_N = ((y < 0) | (y >= classes)).reshape(len(y), -1).any(1)
    if bad_N.any():
        row = int(bad_N.argmax())
        raise UserError(
            f"{what}: row {rows[row]} has the label {y[row].tolist()}, but the model has {classes} outputs, so "
            f"labels are 0 to {classes - 1}; number them from 0, and leave out rows without a label (numbers that are "
            "no labels: give floating-point ones)"
        )


class StoredSplit:
    """A split that `write_split` wrote."""

    def __init__(self, folder: Path) -> None:
        form = read_json(folder / _STRUCTURE)
        self._inputs = int(form["inputs"]["count"])
        count = self._inputs + int(form["target"]["count"])
        self._files = [np.load(folder / f"{i}.npy", mmap_mode="r") for i in range(count)]

    def __len__(self) -> int:
        return len(self._files[0])

    def batch(self, sample_id: Tensor) -> Batch:
        """The samples of these rows, in this order."""
        rows = sample_id.numpy()
        parts = [torch.from_numpy(np.ascontiguousarray(file[rows])) for file in self._files]
        target = parts[self._inputs :]
        return Batch(tuple(parts[: self._inputs]), target[0] if len(target) == 1 else tuple(target), sample_id)
