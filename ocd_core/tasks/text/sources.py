"""Labelled texts through Hugging Face `datasets`, checked; and the draw of a few of each class.

Dims: N texts.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ocd_core.errors import UserError
from ocd_core.rng import permutation
from ocd_core.tasks.data_files import Patterns
from ocd_core.tasks.hugging_face import Origin, integer_labels, opened


@dataclass(frozen=True)
class Texts:
    """texts: N. label_N, source_row_N: int64; the row is that in the part of the source that the text is from."""

    texts: Sequence[str]
    label_N: Tensor
    source_row_N: Tensor

    def __len__(self) -> int:
        return len(self.texts)

    def select(self, rows: Tensor) -> "Texts":
        """Some of the texts, in this order."""
        return Texts([self.texts[row] for row in rows.tolist()], self.label_N[rows], self.source_row_N[rows])


def read_texts(path: str, files: Patterns, text_column: str, label_column: str) -> tuple[dict[str, Texts], Origin]:
    """Parts of a data set on the Hugging Face hub or in a local folder (see `opened`).

    Raises:
        UserError: a folder, data set, file or column does not exist; a text is missing, empty or not UTF-8; a label is
            missing, negative or not an integer.
    """
    with opened(path, files) as (tables, origin):
        return {
            part: _checked(tables[part], f"{path}, {part} part", text_column, label_column) for part in files
        }, origin


def _checked(table: Any, where: str, text_column: str, label_column: str) -> Texts:
    for key, column in (("text_column", text_column), ("label_column", label_column)):
        if column not in table.column_names:
            raise UserError(
                f"data.{key}: {where} has no column {column!r}; its columns are {', '.join(table.column_names)}"
            )
    label_N = integer_labels(table, label_column, where)
    check_labels(label_N, None, where)
    return Texts(_texts(table, text_column, where), label_N, torch.arange(len(label_N)))


def _texts(table: Any, column: str, where: str) -> list[str]:
    values = table.data.column(column)
    if str(values.type) not in ("string", "large_string", "string_view"):
        raise UserError(f"{where}: column {column!r} holds {values.type}, not texts")
    try:
        texts: list[str | None] = values.to_pylist()
    except UnicodeDecodeError as error:  # Parquet files are not checked when they are read
        raise UserError(f"{where}: column {column!r} holds a text that is not UTF-8: {error}") from error
    found = []
    for row, text in enumerate(texts):
        if text is None or not text.strip():
            raise UserError(f"{where}: the text in row {row} is {'missing' if text is None else 'empty'}")
        found.append(text)
    return found


def check_labels(label_N: Tensor, classes: int | None, where: str) -> None:
    """Refuse labels below 0, and with `classes` labels above classes - 1.

    Raises:
        UserError: the message names `where` and the first bad row.
    """
    bad = label_N < 0 if classes is None else (label_N < 0) | (label_N >= classes)
    rows = bad.nonzero().flatten()
    if len(rows):
        row = int(rows[0])
        bounds = "is below 0" if classes is None else f"is outside 0..{classes - 1}, the classes of the train part"
        raise UserError(f"{where}: label {int(label_N[row])} in row {row} {bounds} ({len(rows)} such rows)")


def few_shots(label_N: Tensor, shots: int, val_shots: int, seed: int, where: str) -> tuple[Tensor, Tensor]:
    """Rows of train and of val, int64: `shots` of each class at random, of which `val_shots` are val.

    The classes are 0 to the largest label. Rows are sorted by class, and inside a class in the order of the draw.

    Raises:
        UserError: a class has fewer than `shots` rows, or there is one class alone.
    """
    classes = int(label_N.max()) + 1
    if classes < 2:
        raise UserError(f"{where}: all labels are 0; a classification needs at least two classes")
    train, val = [], []
    for label in range(classes):
        rows = (label_N == label).nonzero().flatten()
        if len(rows) < shots:
            from_one = "; the labels count from 1, so subtract 1" if int(label_N.min()) == 1 else ""
            raise UserError(
                f"{where}: class {label} has {len(rows)} rows, but data.shots asks for {shots} of each class (labels "
                f"0..{classes - 1}){from_one}"
            )
        drawn = rows[permutation(len(rows), seed, "shots", label)[:shots]]
        val.append(drawn[:val_shots])
        train.append(drawn[val_shots:])
    return torch.cat(train), torch.cat(val)


def subset_of_test(count: int, size: int | None, where: str) -> Tensor:
    """Rows of test, int64 and ascending: all, or a subset that is the same for every draw of the shots.

    Raises:
        UserError: there are fewer than `size`.
    """
    if size is None:
        return torch.arange(count)
    if size > count:
        raise UserError(f"data.test_size: {size} texts are asked for, but {where} has {count}")
    return permutation(count, 0, "test texts")[:size].sort().values
