"""The values of the paper's tables, from `paper_tables.yaml`: what our own tables are compared with."""

import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, ValidationError, model_validator

from ocd_core.errors import UserError
from ocd_core.params_files import read_yaml
from ocd_core.strict import StrictModel, first_problem

Edition = Literal["icml2023", "preprint2022"]
OurRow = Literal[
    "base",
    "bound",
    "bound_all_layers",
    "neighbour",
    "ocd_no_scale",
    "ocd_alternative_layer",
    "ocd",
    "ocd_ensemble",
    "ocd_mean_network",
    "tent_1",
    "tent_10",
    "tent_30",
]
_TABLES = Path(__file__).with_suffix(".yaml")
_NUMBER = r"(?:\d+\.?\d*|\.\d+)"
_CELL = re.compile(rf"^({_NUMBER})(?: ± ({_NUMBER}))?$")
_Text = Annotated[str, Field(min_length=1)]
_TableNumber = Annotated[int, Field(ge=1, le=8)]


class PaperValue(StrictModel):
    """One cell of a table of the paper.

    printed_row, column, printed: the names of row and column, and the cell, as printed (an empty cell is ""). dataset:
    None if the column is a mean over data sets, or is not about one. metric: as in our tasks (`cross_entropy`). value,
    plus_minus: the numbers as we read them, in `unit` ("" for none); None if the cell has none. row: the row of our
    tables that it corresponds to, None if there is none. note: what to know about the value.
    """

    edition: Edition
    table: int
    printed_row: str
    column: str
    dataset: str | None
    metric: str
    unit: str
    printed: str
    value: float | None
    plus_minus: float | None
    row: OurRow | None
    note: str | None


class PaperTask(StrictModel):
    """The data set of the paper with which a task of ours is compared, and what differs (None: nothing).

    architecture: the printed row of the table of runtimes, which has none for some networks.
    """

    dataset: _Text
    architecture: _Text
    note: _Text | None = None


class _Cell(StrictModel):
    """A cell with a note; `read` is what we read it as, if that differs from the print."""

    printed: str
    note: _Text
    read: Annotated[str, Field(pattern=_CELL)] | None = None


class _Row(StrictModel):
    """A printed row; `editions` if it is not in all of the table's."""

    printed: _Text
    cells: list[str | _Cell]
    row: OurRow | None = None
    editions: list[Edition] | None = None

    @model_validator(mode="after")
    def _cells_without_a_note_are_numbers(self) -> Self:
        wrong = [c for c in self.cells if isinstance(c, str) and _CELL.match(c) is None]
        if wrong:
            raise ValueError(f"row {self.printed!r}: {wrong[0]!r} is not a number, with or without ±; add a note")
        return self


class _Column(StrictModel):
    printed: _Text
    metric: _Text
    unit: str
    dataset: _Text | None = None


class _Table(StrictModel):
    """A table with its number in each edition; `note` is for all of its values that have none of their own."""

    editions: Annotated[dict[Edition, _TableNumber], Field(min_length=1)]
    columns: list[_Column]
    rows: list[_Row]
    note: _Text | None = None

    def values(self) -> Iterator[PaperValue]:
        for edition, number in self.editions.items():
            for row in self.rows:
                if row.editions is None or edition in row.editions:
                    for column, cell in zip(self.columns, row.cells, strict=True):
                        yield self._value(edition, number, row, column, cell)

    def _value(self, edition: Edition, number: int, row: _Row, column: _Column, cell: str | _Cell) -> PaperValue:
        noted = cell if isinstance(cell, _Cell) else None
        printed = cell.printed if isinstance(cell, _Cell) else cell
        found = _CELL.match(noted.read if noted is not None and noted.read is not None else printed)
        value, plus_minus = (None, None) if found is None else found.groups()
        return PaperValue(
            edition=edition,
            table=number,
            printed_row=row.printed,
            column=column.printed,
            dataset=column.dataset,
            metric=column.metric,
            unit=column.unit,
            printed=printed,
            value=None if value is None else float(value),
            plus_minus=None if plus_minus is None else float(plus_minus),
            row=row.row,
            note=self.note if noted is None else noted.note,
        )

    @model_validator(mode="after")
    def _rows_are_as_long_as_the_header(self) -> Self:
        wrong = [r.printed for r in self.rows if len(r.cells) != len(self.columns)]
        if wrong:
            raise ValueError(f"row {wrong[0]!r} does not have {len(self.columns)} cells")
        return self


class _Tables(StrictModel):
    tasks: dict[str, PaperTask]
    tables: list[_Table]


@cache
def _read() -> _Tables:
    return parse_tables(_TABLES)


def parse_tables(path: Path) -> _Tables:
    """The checked contents of a file of tables.

    Raises:
        UserError: the file is not YAML, or its contents are not tables; the message names the place.
    """
    try:
        return _Tables.model_validate(read_yaml(path))
    except ValidationError as error:
        raise UserError(f"{path}: {first_problem(error)}") from error


@cache
def paper_values() -> tuple[PaperValue, ...]:
    """All values of both editions, in the order of the tables."""
    return tuple(value for table in _read().tables for value in table.values())


def paper_datasets() -> list[str]:
    """The names of the data sets that `paper_rows` knows."""
    return sorted({v.dataset for v in paper_values() if v.dataset is not None})


def paper_rows(dataset: str, edition: Edition | None = None) -> list[PaperValue]:
    """The values for a data set, of one edition or both (ICML first), in the order of the tables.

    Raises:
        UserError: no table has a column for the data set.
    """
    if dataset not in paper_datasets():
        raise UserError(f"the paper has no data set {dataset!r}; it has {', '.join(paper_datasets())}")
    found = [v for v in paper_values() if v.dataset == dataset and edition in (None, v.edition)]
    return sorted(found, key=lambda v: v.edition)


def paper_value(row: OurRow, dataset: str, metric: str, edition: Edition = "icml2023") -> PaperValue | None:
    """The value that corresponds to a row of our tables; None if the edition has none.

    Raises:
        UserError: see `paper_rows`.
    """
    found = [v for v in paper_rows(dataset, edition) if v.row == row and v.metric == metric]
    return found[0] if found else None


def paper_task(task: str) -> PaperTask | None:
    """With which data set of the paper a task is compared; None if with none."""
    return _read().tasks.get(task)


def paper_runtimes(task: str) -> list[PaperValue]:
    """The runtimes of a task's architecture (ICML, Tab. 7), if the task is compared with the paper and has any."""
    compared = paper_task(task)
    if compared is None:
        return []
    found = [v for v in paper_values() if v.metric == "runtime" and v.printed_row == compared.architecture]
    return [v for v in found if v.edition == "icml2023"]
