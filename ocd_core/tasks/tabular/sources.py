"""Sources of tables: scikit-learn's California housing, Parquet and CSV files, svmlight files with query ids.

Dims: N rows, F features.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ocd_core.errors import UserError
from ocd_core.files import is_shortage, path_of
from ocd_core.hub import local_folder
from ocd_core.tasks.data_files import local_files
from ocd_core.tasks.hugging_face import Origin, opened, stated_licence
from ocd_core.tasks.tabular.columns import (
    Column,
    Columns,
    are_numbers,
    columns_of,
    index_columns,
    is_missing,
    is_text,
    numbers_of,
    read_table,
    refuse_almost_numbers,
    refuse_dates,
    texts_of,
)
from ocd_core.tasks.tabular.params import TabularData

CALIFORNIA_LICENCE = "none stated; StatLib, Pace and Barry (1997)"


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
        return _read_svmlight(path_of(str(data.path)), patterns)
    if data.source == "california":
        return {"train": _table(_california(), data, "the data set")}, Origin({}, CALIFORNIA_LICENCE)
    folder = local_folder(str(data.path), "data.path")
    parts, origin = _read_hub(data, patterns) if folder is None else _read_folder(folder, patterns, data)
    names = _wanted(list(parts["train"]), data, "the train part")
    for part, columns in parts.items():
        for name in names:
            if name not in columns:
                raise UserError(f"the {part} part has no column {name!r}, which the train part has")
    numeric = [name for name in names if name not in _texts(data) and are_numbers(parts["train"][name])]
    for name in names:
        if name not in (data.target, *_texts(data), *numeric):
            if _all_csv(origin):
                refuse_almost_numbers(parts["train"][name], name, "the train part")
            refuse_dates(parts["train"][name], name, "the train part")
    # text in Parquet files stays text, even if it looks like numbers
    from_text = [name for name in numeric if _all_csv(origin) and is_text(parts["train"][name])]
    for part, columns in parts.items():
        for name in from_text:
            columns[name] = numbers_of(columns[name], name, f"the {part} part")
    return {part: _table(columns, data, f"the {part} part") for part, columns in parts.items()}, origin


def _texts(data: TabularData) -> list[str]:
    """The columns whose numbers are names."""
    return [*data.categories, *([] if data.group is None else [data.group])]


def _all_csv(origin: Origin) -> bool:
    return all(name.lower().endswith(".csv") for names in origin.files.values() for name in names)


def _read_folder(
    folder: Path, patterns: Mapping[str, list[str]], data: TabularData
) -> tuple[dict[str, Columns], Origin]:
    files = local_files(folder, patterns)
    _refuse_mixed([file for own in files.values() for file in own])
    parts: dict[str, Columns] = {}
    left_out: list[str] = []
    for part, own in files.items():
        read = []
        for file in own:
            table = read_table(file)
            left_out += _left_out(table, data) if part == "train" else []
            chosen = [*data.features, *_texts(data), str(data.target)] if data.features else _others(table, left_out)
            read.append(columns_of(table, chosen, str(file), _texts(data)))
        read = [{name: columns[name] for name in columns if name not in left_out} for columns in read]
        for file, columns in zip(own, read, strict=True):
            if set(columns) != set(read[0]):
                name = sorted(set(columns) ^ set(read[0]))[0]
                raise UserError(f"data.{part}_files: {own[0].name} and {file.name} have different columns ({name!r})")
        parts[part] = {name: _joined([columns[name] for columns in read]) for name in read[0]}
        if not any(len(values) for values in parts[part].values()):
            raise UserError(f"data.{part}_files: {', '.join(file.name for file in own)} in {folder} holds no rows")
    card = folder / "README.md"
    names = {part: [file.relative_to(folder).as_posix() for file in own] for part, own in files.items()}
    return parts, Origin(names, stated_licence(str(card)) if card.is_file() else None, list(dict.fromkeys(left_out)))


def _left_out(table: Any, data: TabularData) -> list[str]:
    """The columns of the train part that only say which row is which, unless the params name them."""
    if data.features is not None:
        return []
    return [name for name in index_columns(table) if name not in (data.target, *_texts(data))]


def _others(table: Any, left_out: Sequence[str]) -> list[str]:
    return [name for name in table.column_names if name not in left_out]


def _refuse_mixed(files: Sequence[Path]) -> None:
    """Refuse CSV beside Parquet: text that looks like numbers is numbers in the one, and text in the other."""
    named = {file.suffix.lower(): file.name for file in files}
    if {".csv", ".parquet"} <= named.keys():
        raise UserError(
            f"data.path: {named['.csv']} and {named['.parquet']} have different formats; use one for all parts"
        )


def _joined(columns: list[Column]) -> Column:
    """The rows of several files; text if one of them holds text."""
    if any(is_text(values) for values in columns):
        columns = [texts_of(values) for values in columns]
    return np.concatenate(columns)


def _read_hub(data: TabularData, patterns: Mapping[str, list[str]]) -> tuple[dict[str, Columns], Origin]:
    with opened(str(data.path), patterns) as (tables, origin):
        parts: dict[str, Columns] = {}
        left_out = _left_out(tables["train"].data, data)
        for part in patterns:
            table, where = tables[part].data, f"the {part} part"
            wanted = _wanted(_others(table, left_out), data, where)
            parts[part] = columns_of(table, wanted, where, _texts(data))
    return parts, replace(origin, left_out=left_out)


def _california() -> Columns:
    from sklearn.datasets import fetch_california_housing

    try:
        frame = fetch_california_housing(as_frame=True).frame
    except OSError as error:
        if is_shortage(error):
            raise
        raise UserError(
            f"data.source california: scikit-learn cannot fetch the data set ({error}); with a copy of your own, use "
            "source table"
        ) from error
    return {name: frame[name].to_numpy(np.float64) for name in frame.columns}


def _wanted(columns: Sequence[str], data: TabularData, where: str) -> list[str]:
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


def _table(columns: Columns, data: TabularData, where: str) -> Table:
    wanted = _wanted(list(columns), data, where)
    names = [name for name in wanted if name not in (data.target, data.group)]
    if not names:
        raise UserError(f"{where} has no features besides the target {data.target!r}")
    features = {name: texts_of(columns[name]) if name in data.categories else columns[name] for name in names}
    assert data.target is not None
    target = columns[data.target]
    missing = np.flatnonzero(is_missing(target))
    if len(missing):
        raise UserError(
            f"data.target: {data.target!r} is missing in row {missing[0]} of {where} ({len(missing)} such rows); "
            "remove these rows"
        )
    group = None if data.group is None else texts_of(columns[data.group])
    if group is not None and bool(is_missing(group).any()):
        raise UserError(f"data.group: {data.group!r} is missing in some rows of {where}")
    return Table(features, target, group)


def _read_svmlight(folder: Path, patterns: Mapping[str, list[str]]) -> tuple[dict[str, Table], Origin]:
    from sklearn.datasets import load_svmlight_files

    if not folder.is_dir():
        raise UserError(f"data.path: there is no folder {folder}")
    files = local_files(folder, patterns)
    paths = [str(file) for part in files.values() for file in part]
    try:
        loaded = load_svmlight_files(paths, query_id=True, dtype=np.float64)
    except (ValueError, OSError, UnicodeDecodeError) as error:
        if is_shortage(error):
            raise
        named = ", ".join(Path(path).name for path in paths)
        raise UserError(f"data.path: {folder} ({named}) is not in svmlight format: {error}") from error
    triples = zip(loaded[0::3], loaded[1::3], loaded[2::3], strict=True)
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
