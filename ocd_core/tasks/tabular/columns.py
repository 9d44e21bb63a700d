"""Columns of tables: numbers or text, with missing values; the same rules for training and for single rows.

A Parquet file says what its columns hold. A CSV file holds text, which becomes numbers if every value of the training
rows is one.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ocd_core.errors import UserError
from ocd_core.files import is_shortage

if TYPE_CHECKING:
    import pyarrow

Column = npt.NDArray[Any]  # numbers, float64, NaN if missing; or text, object, None if missing
Columns = dict[str, Column]
LARGEST = float(np.finfo(np.float32).max)  # features and targets become float32
# what a CSV file writes for a missing value: the empty field, and the words that pandas reads so
MISSING = (
    "", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>", "N/A", "NA",
    "NULL", "NaN", "None", "n/a", "nan", "null",
)  # fmt: skip


def read_file(path: Path, names: Sequence[str] | None = None, texts: Sequence[str] = ()) -> Columns:
    """The columns of a Parquet or CSV file, in its order; those of a CSV file are text.

    Args:
        names: the columns to read, of which the file need not have all; None: all.
        texts: columns of Parquet files whose numbers are read as text, without rounding.

    Raises:
        UserError: it does not exist, has another suffix or is damaged, two columns have one name, or a column is not
            possible (see `to_column`).
    """
    if not path.is_file():
        raise UserError(f"{path} does not exist or is not a file")
    table = _read(path)
    again = {name for name in table.column_names if table.column_names.count(name) > 1}
    if again:
        raise UserError(f"{path} has several columns named {sorted(again)[0]!r}; rename them")
    wanted = [name for name in table.column_names if names is None or name in names]
    return {name: to_column(table.column(name), name, str(path), name in texts) for name in wanted}


def _read(path: Path) -> "pyarrow.Table":
    import pyarrow as pa
    from pyarrow import csv, parquet

    suffix = path.suffix.lower()
    if suffix not in (".parquet", ".csv"):
        raise UserError(f"{path} is not named .parquet or .csv")
    try:
        if suffix == ".parquet":
            return parquet.read_table(path)
        with csv.open_csv(path) as reader:
            header = reader.schema.names
        as_text = csv.ConvertOptions(
            column_types=dict.fromkeys(header, pa.string()), null_values=list(MISSING), strings_can_be_null=True
        )
        return csv.read_csv(path, convert_options=as_text)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        if is_shortage(error):
            raise
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"{path} is not a readable {suffix[1:]} file: {reason}") from error


def to_column(values: Any, name: str, where: str, as_text: bool = False) -> Column:
    """An Arrow column as numbers or text.

    Args:
        as_text: whether numbers become text.

    Raises:
        UserError: it has another type, or numbers that are infinite, in float32 too.
    """
    import pyarrow as pa
    from pyarrow import types

    kind = values.type
    if types.is_dictionary(kind):
        values = values.cast(kind.value_type)
        kind = values.type
    if types.is_string(kind) or types.is_large_string(kind):
        return np.array(values.to_pylist(), dtype=object)
    if types.is_boolean(kind):
        values, kind = values.cast(pa.int8()), pa.int8()
    whole = types.is_integer(kind)
    if not (whole or types.is_floating(kind) or types.is_decimal(kind) or types.is_null(kind)):
        raise UserError(
            f"column {name!r} of {where} has the type {kind}; only numbers and text are supported: convert it, or "
            "leave it out with data.features"
        )
    if as_text and whole:  # float64 would round large ones
        return np.array(values.cast(pa.string()).to_pylist(), dtype=object)
    numbers = np.asarray(values.cast(pa.float64(), safe=False).to_numpy(), np.float64)
    _refuse_infinite(numbers, name, where)
    return texts_of(numbers) if as_text else numbers


def _refuse_infinite(numbers: Column, name: str, where: str) -> None:
    infinite = np.flatnonzero(np.isinf(numbers))
    if len(infinite):
        raise UserError(f"column {name!r} of {where} is infinite in row {infinite[0]} ({len(infinite)} such rows)")
    large = np.flatnonzero(np.abs(numbers) > LARGEST)
    if len(large):
        raise UserError(
            f"column {name!r} of {where} is {numbers[large[0]]:g} in row {large[0]}, more than float32 holds "
            f"({len(large)} such rows); choose another unit, or leave the column out with data.features"
        )


def is_text(values: Column) -> bool:
    """Whether a column holds text."""
    return values.dtype == object


def is_missing(values: Column) -> npt.NDArray[np.bool_]:
    """Which values are missing, (N,)."""
    if is_text(values):
        return np.array([value is None for value in values], dtype=bool)
    return np.isnan(values.astype(np.float64))


def texts_of(values: Column) -> Column:
    """Numbers as the text of a category: 3.0 is `3`. Text stays as it is."""
    if is_text(values):
        return values
    return np.array([None if np.isnan(v) else _text(v) for v in values.tolist()], dtype=object)


def _text(value: float) -> str:
    return str(int(value)) if float(value).is_integer() else repr(float(value))


def are_numbers(values: Column) -> bool:
    """Whether every text that is not missing is a number, and there is one at least."""
    if not is_text(values):
        return True
    present = [value for value in values if value is not None]
    return bool(present) and all(_parsed(value) is not None for value in present)


def numbers_of(values: Column, name: str, where: str) -> Column:
    """Text as numbers, float64. Numbers stay as they are.

    Raises:
        UserError: a text is not a number, or is infinite, in float32 too.
    """
    if not is_text(values):
        return values
    found = np.full(len(values), np.nan)
    for row, value in enumerate(values):
        number = None if value is None else _parsed(value)
        if value is not None and number is None:
            raise UserError(
                f"column {name!r} of {where} holds {value!r} in row {row}, but numbers in the training rows"
            )
        found[row] = np.nan if number is None else number
    _refuse_infinite(found, name, where)
    return found


def _parsed(text: str) -> float | None:
    try:
        number = float(text)
    except ValueError:
        return None
    return None if "_" in text or np.isnan(number) else number  # Python also reads 1_000
