"""Sources of tables: scikit-learn's California housing, Parquet and CSV files, svmlight files with query ids.

Dims: N rows, F features.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ocd_core.errors import UserError
from ocd_core.tasks.data_files import local_files
from ocd_core.tasks.hugging_face import Origin, opened
from ocd_core.tasks.tabular.params import TabularData

Column = npt.NDArray[Any]  # numbers, float64, NaN if missing; or text, object, None if missing
Columns = dict[str, Column]

CALIFORNIA_LICENCE = "none stated; StatLib, Pace and Barry (1997)"
_GROUP, _TARGET = "group", "target"


@dataclass(frozen=True)
class Table:
    """One part of a source. features: by name, in order. target: (N,). group: (N,), or None."""

    features: Columns
    target: Column
    group: Column | None

    def __len__(self) -> int:
        return len(self.target)

    def select(self, rows: npt.NDArray[np.int64]) -> "Table":
        """Some of the rows, in this order."""
        group = None if self.group is None else self.group[rows]
        return Table({name: values[rows] for name, values in self.features.items()}, self.target[rows], group)


def read_parts(data: TabularData) -> tuple[dict[str, Table], Origin]:
    """The parts of the source, train and perhaps val and test, with the same features; and where they come from.

    Raises:
        UserError: files are missing or damaged, a column is missing or has a type or values that are not possible.
    """
    given = {"train": data.train_files, "val": data.val_files, "test": data.test_files}
    patterns = {part: names for part, names in given.items() if names is not None}
    if data.source == "svmlight":
        return _read_svmlight(Path(str(data.path)).expanduser(), patterns)
    if data.source == "california":
        return {"train": _table(_california(), data, "the data set")}, Origin({}, CALIFORNIA_LICENCE)
    with opened(str(data.path), patterns, gaps=True) as (tables, origin):
        parts = {
            part: {name: tables[part].data.column(name) for name in tables[part].column_names} for part in patterns
        }
        raw = {
            part: {name: to_column(values, name, f"the {part} part") for name, values in columns.items()
                   if name in _wanted(columns, data, f"the {part} part")}
            for part, columns in parts.items()
        }  # fmt: skip
    return {part: _table(columns, data, f"the {part} part") for part, columns in raw.items()}, origin


def read_file(path: Path) -> Columns:
    """The columns of a Parquet or CSV file.

    Raises:
        UserError: it does not exist, has another suffix or is damaged, or a column is not possible.
    """
    from pyarrow import ArrowException, csv, parquet

    readers = {".parquet": parquet.read_table, ".csv": csv.read_csv}
    if path.suffix.lower() not in readers:
        raise UserError(f"{path} is not named .parquet or .csv")
    if not path.is_file():
        raise UserError(f"{path} does not exist or is not a file")
    try:
        table = readers[path.suffix.lower()](path)
    except (ArrowException, OSError) as error:
        raise UserError(f"{path} is not a readable {path.suffix[1:]} file: {error}") from error
    return {name: to_column(table.column(name), name, str(path)) for name in table.column_names}


def _california() -> Columns:
    from sklearn.datasets import fetch_california_housing

    try:
        frame = fetch_california_housing(as_frame=True).frame
    except OSError as error:
        raise UserError(
            f"data.source california: scikit-learn cannot fetch the data set ({error}); with a copy of your own, use "
            "source table"
        ) from error
    return {name: frame[name].to_numpy(np.float64) for name in frame.columns}


def _wanted(columns: Mapping[str, Any], data: TabularData, where: str) -> list[str]:
    """The columns to read, in the table's order.

    Raises:
        UserError: a column of the params is not there.
    """
    roles = {"target": [data.target], "group": [data.group], "features": data.features, "categories": data.categories}
    for key, names in roles.items():
        for name in names or []:
            if name is not None and name not in columns:
                raise UserError(f"data.{key}: {where} has no column {name!r} (it has {', '.join(columns)})")
    chosen = {data.target, data.group, *(columns if data.features is None else data.features)}
    for name in data.categories:
        if name not in chosen or name in (data.target, data.group):
            raise UserError(f"data.categories: {name!r} is not among the features")
    return [name for name in columns if name in chosen]


def to_column(values: Any, name: str, where: str) -> Column:
    """An Arrow column as numbers or text.

    Raises:
        UserError: it has another type, or infinite numbers.
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
        values = values.cast(pa.int8())
    elif not (types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind) or types.is_null(kind)):
        raise UserError(
            f"column {name!r} of {where} has the type {kind}; only numbers and text are supported: convert it, or "
            "leave it out with data.features"
        )
    numbers = np.asarray(values.cast(pa.float64()).to_numpy(), np.float64)
    infinite = np.flatnonzero(np.isinf(numbers))
    if len(infinite):
        raise UserError(f"column {name!r} of {where} is infinite in row {infinite[0]} ({len(infinite)} such rows)")
    return numbers


def _table(columns: Columns, data: TabularData, where: str) -> Table:
    wanted = _wanted(columns, data, where)
    names = [name for name in wanted if name not in (data.target, data.group)]
    if not names:
        raise UserError(f"{where} has no features besides the target {data.target!r}")
    features = {name: as_text(columns[name]) if name in data.categories else columns[name] for name in names}
    assert data.target is not None
    target = columns[data.target]
    missing = np.flatnonzero(is_missing(target))
    if len(missing):
        raise UserError(
            f"data.target: {data.target!r} is missing in row {missing[0]} of {where} ({len(missing)} such rows); "
            "remove these rows"
        )
    group = None if data.group is None else columns[data.group]
    if group is not None and bool(is_missing(group).any()):
        raise UserError(f"data.group: {data.group!r} is missing in some rows of {where}")
    return Table(features, target, group)


def is_missing(values: Column) -> npt.NDArray[np.bool_]:
    """Which values are missing, (N,)."""
    if values.dtype == object:
        return np.array([value is None for value in values], dtype=bool)
    return np.isnan(values.astype(np.float64))


def as_text(values: Column) -> Column:
    """Numbers as the text of a category: 3.0 is `3`."""
    if values.dtype == object:
        return values
    return np.array([None if np.isnan(v) else f"{v:.15g}" for v in values.tolist()], dtype=object)


def _read_svmlight(folder: Path, patterns: Mapping[str, list[str]]) -> tuple[dict[str, Table], Origin]:
    from sklearn.datasets import load_svmlight_files

    if not folder.is_dir():
        raise UserError(f"data.path: there is no folder {folder}")
    files = local_files(folder, patterns)
    paths = [str(file) for part in files.values() for file in part]
    try:
        loaded = load_svmlight_files(paths, query_id=True, dtype=np.float64)
    except (ValueError, OSError, UnicodeDecodeError) as error:
        named = ", ".join(Path(path).name for path in paths)
        raise UserError(f"data.path: {folder} ({named}) is not in svmlight format: {error}") from error
    triples = iter(list(zip(loaded[0::3], loaded[1::3], loaded[2::3], strict=True)))
    parts = {}
    for part, own in files.items():
        found = [next(triples) for _ in own]
        x_NF = np.concatenate([x.toarray() for x, _, _ in found])
        query = np.concatenate([q for _, _, q in found])
        target = np.concatenate([y for _, y, _ in found])
        if not len(target):
            raise UserError(f"data.{part}_files: {', '.join(f.name for f in own)} holds no rows")
        if not np.isfinite(x_NF).all() or not np.isfinite(target).all():
            raise UserError(f"data.{part}_files: {', '.join(f.name for f in own)} holds values that are not finite")
        if len(query) != len(target):
            raise UserError(f"data.{part}_files: {', '.join(f.name for f in own)} lacks query ids (qid:...)")
        features: Columns = {f"feature {i + 1}": column for i, column in enumerate(np.ascontiguousarray(x_NF.T))}
        parts[part] = Table(features, target, query.astype(np.float64))
    names = {part: [file.relative_to(folder).as_posix() for file in own] for part, own in files.items()}
    return parts, Origin(names, None)
