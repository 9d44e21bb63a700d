"""Columns of tables: numbers or text, with missing values; the same rules for training and for single rows.

A Parquet file says what its columns hold. A CSV file holds text, which becomes numbers if every value of the training
rows is one.
"""

import json
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from decimal import Decimal
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

# what pandas makes of an index or a column without a name; an empty name is what it and R write for row names
_NAMELESS = re.compile(r"\s*|__index_level_\d+__|Unnamed: \d+(\.\d+)*")
_DATE = re.compile(r"\d{4}-\d\d-\d\d([T ]\d\d:\d\d.*)?")
_EXACT = 2.0**53  # larger whole numbers may not be float64


def read_file(path: Path, names: Sequence[str], texts: Sequence[str] = ()) -> Columns:
    """Some columns of a Parquet or CSV file; see `read_table` and `columns_of`."""
    return columns_of(read_table(path), names, str(path), texts)


def read_table(path: Path) -> "pyarrow.Table":
    """A Parquet or CSV file; the columns of a CSV file are text.

    Raises:
        UserError: it does not exist, has another suffix or is damaged.
    """
    import pyarrow as pa
    from pyarrow import csv, parquet

    if not path.is_file():
        raise UserError(f"{path} does not exist or is not a file")
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


def index_columns(table: Any) -> list[str]:
    """The columns of a table (of pyarrow or of `datasets`) that only say which row is which.

    They are those that pandas has stored as its index, and those without a name of their own.
    """
    try:
        stored = json.loads((table.schema.metadata or {}).get(b"pandas", b"{}")).get("index_columns", [])
    except (ValueError, AttributeError):  # damaged, or not of pandas
        stored = []
    named = stored if isinstance(stored, list) else []
    return [name for name in dict.fromkeys(table.column_names) if name in named or _NAMELESS.fullmatch(name)]


def columns_of(table: Any, names: Sequence[str], where: str, texts: Sequence[str] = ()) -> Columns:
    """Some columns of a table (of pyarrow or of `datasets`), in its order.

    Args:
        names: of which the table need not have all.
        texts: columns of Parquet files whose numbers are read as text, without rounding.

    Raises:
        UserError: two of the columns have one name, or a column is not possible (see `to_column`).
    """
    wanted = [name for name in table.column_names if name in names]
    again = {name for name in wanted if wanted.count(name) > 1}
    if again:
        raise UserError(f"{where} has several columns named {sorted(again)[0]!r}; rename them")
    return {name: to_column(table.column(name), name, where, name in texts) for name in wanted}


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


def first_that_is_no_number(values: Column) -> tuple[int, str]:
    """The row and the text of the first value that is none; there must be one."""
    return next((row, value) for row, value in enumerate(values) if value is not None and _parsed(value) is None)


def refuse_almost_numbers(values: Column, name: str, where: str) -> None:
    """Refuse a column of text most of whose values are numbers: one slip of the pen would make all of them categories.

    Raises:
        UserError: it is one; the message names the first value that is not a number.
    """
    counts = Counter(value for value in values if value is not None)
    numbers = sum(count for value, count in counts.items() if _parsed(value) is not None)
    others = counts.total() - numbers
    if 0 < others < numbers:
        row, first = first_that_is_no_number(values)
        raise UserError(
            f"column {name!r} of {where} holds numbers, but {first!r} in row {row} ({others} such rows); correct them "
            "(an empty field is a missing number), or list the column in data.categories"
        )


def refuse_dates(values: Column, name: str, where: str) -> None:
    """Refuse a column of text most of whose values are dates.

    Raises:
        UserError: it is one; the message names the first date.
    """
    counts = Counter(value for value in values if value is not None)
    dates = sum(count for value, count in counts.items() if _DATE.fullmatch(value.strip()))
    if 2 * dates > counts.total():
        row, first = next((i, v) for i, v in enumerate(values) if v is not None and _DATE.fullmatch(v.strip()))
        raise UserError(
            f"column {name!r} of {where} holds dates, such as {first!r} in row {row}; make numbers of them, leave the "
            "column out with data.features, or list it in data.categories"
        )


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


def same_numbers(texts: Iterable[str], known: Iterable[str]) -> dict[str, str]:
    """{text: the known one that is the same number}, such as `1.0` and `1`, where all known ones are numbers.

    A text that is several of them (`1` and `01` are known, `1.0` is not) has none.
    """
    by_number: dict[str | None, list[str]] = {}
    for text in known:
        by_number.setdefault(_number_in_words(text), []).append(text)
    if None in by_number:
        return {}
    found = {text: by_number.get(_number_in_words(text), []) for text in texts}
    return {text: same[0] for text, same in found.items() if len(same) == 1}


def _number_in_words(text: str) -> str | None:
    """The text that equal numbers share, whole ones of any size; None if it is no finite number."""
    number = _parsed(text)
    if number is None or np.isinf(number):
        return None
    return _text(number) if abs(number) < _EXACT else str(int(Decimal(text)))
