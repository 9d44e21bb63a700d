"""Columns: types, gaps, text that is numbers, single files."""

from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocd_core.errors import UserError
from ocd_core.tasks.tabular.columns import (
    LARGEST,
    are_numbers,
    index_columns,
    is_missing,
    numbers_of,
    read_file,
    read_table,
    refuse_almost_numbers,
    refuse_dates,
    same_numbers,
    texts_of,
    to_column,
)
from tests.tasks.tabular.tables import write


def test_other_types_are_refused() -> None:
    days = pa.chunked_array([pa.array([1, 2], pa.date32())])
    with pytest.raises(UserError, match=r"column 'day' of the train part has the type date32.*leave it out"):
        to_column(days, "day", "the train part")
    with pytest.raises(UserError, match=r"column 'x' of rows.csv is infinite in row 1 \(2 such rows\)"):
        to_column(pa.chunked_array([[1.0, np.inf, -np.inf]]), "x", "rows.csv")


def test_every_type_of_number_and_text() -> None:
    def of(values: Any, kind: Any) -> list[Any]:
        return to_column(pa.chunked_array([pa.array(values, kind)]), "x", "").tolist()

    assert of([True, False], pa.bool_()) == [1.0, 0.0]
    assert of([3, 4], pa.uint8()) == [3.0, 4.0]
    assert of([1, 2], pa.decimal128(5, 1)) == [1.0, 2.0]
    assert np.isnan(of([None, None], pa.null())).all()
    assert of(["a", None], pa.large_string()) == ["a", None]
    assert of(["a", "b", "a"], pa.dictionary(pa.int8(), pa.string())) == ["a", "b", "a"]


def test_numbers_as_texts() -> None:
    values = np.array([3.0, 0.5, np.nan, 1e6, -2.0, 1234567890123457.0])
    assert texts_of(values).tolist() == ["3", "0.5", None, "1000000", "-2", "1234567890123457"]
    assert (
        is_missing(values).tolist()
        == is_missing(texts_of(values)).tolist()
        == [False, False, True, False, False, False]
    )


def test_single_files(tmp_path: Path) -> None:
    write(tmp_path, {"a": [1.5], "c": ["x"]}, "one.parquet")
    (tmp_path / "one.CSV").write_text("a,c,gone,word\n1.5,x,,NA\n")
    found = {k: v.tolist() for k, v in read_file(tmp_path / "one.parquet", ["c", "a"]).items()}
    assert found == {"a": [1.5], "c": ["x"]}
    found = {k: v.tolist() for k, v in read_file(tmp_path / "one.CSV", ["a", "c", "gone", "word"]).items()}
    assert found == {"a": ["1.5"], "c": ["x"], "gone": [None], "word": [None]}
    assert list(read_file(tmp_path / "one.CSV", ["c", "other"])) == ["c"]
    (tmp_path / "bad.parquet").write_bytes(b"no")
    for name, message in (("bad.parquet", "not a readable parquet"), ("no.csv", "does not exist")):
        with pytest.raises(UserError, match=message):
            read_file(tmp_path / name, ["a"])
    (tmp_path / "x.txt").write_text("a\n1\n")
    with pytest.raises(UserError, match=r"is not named \.parquet or \.csv"):
        read_file(tmp_path / "x.txt", ["a"])


def test_whole_numbers_as_text_are_not_rounded() -> None:
    values = pa.chunked_array([[9007199254740993, None]])
    assert to_column(values, "id", "", as_text=True).tolist() == ["9007199254740993", None]
    assert to_column(values, "id", "")[0] == 9007199254740992.0  # as a number, the nearest


@given(st.lists(st.one_of(st.none(), st.floats(-LARGEST, LARGEST)), min_size=1))
def test_numbers_survive_a_way_through_text(values: list[float | None]) -> None:
    texts = np.array([None if v is None else repr(v) for v in values], object)
    assert are_numbers(texts) == any(v is not None for v in values)
    found = numbers_of(texts, "x", "")
    assert [None if np.isnan(v) else v for v in found] == values


def test_what_is_no_number() -> None:
    for text in ("x", "1_000", "nan", "", "01x"):
        assert not are_numbers(np.array([text], object))
        with pytest.raises(UserError, match=r"column 'a' of here holds .* in row 1, but numbers in the training rows"):
            numbers_of(np.array(["1", text], object), "a", "here")
    with pytest.raises(UserError, match="infinite in row 0"):
        numbers_of(np.array(["inf"], object), "a", "here")


@pytest.mark.parametrize("large", [3.5e38, -1e300])
def test_numbers_that_float32_cannot_hold(large: float) -> None:
    message = rf"column 'a' of here is {large:g} in row 1, more than float32 holds \(2 such rows\)".replace("+", r"\+")
    with pytest.raises(UserError, match=message):
        to_column(pa.chunked_array([[1.0, large, large]]), "a", "here")
    with pytest.raises(UserError, match=message):
        numbers_of(np.array(["1", str(large), str(large)], object), "a", "here")
    assert to_column(pa.chunked_array([[3.4e38, -3.4e38]]), "a", "here").tolist() == [3.4e38, -3.4e38]


def objects(*values: str | None) -> Any:
    return np.array(values, object)


def test_pandas_own_files_tell_which_columns_are_its_index(tmp_path: Path) -> None:
    """Of whatever pandas writes, what it reads back as its index."""
    frame = pd.DataFrame({"a": [1.0, 2.0], "y": [0, 1]}, index=[7, 3])
    for index in (
        frame.index,
        frame.index.rename("patient"),
        pd.RangeIndex(2),
        pd.MultiIndex.from_tuples([(1, "x"), (1, "y")]),
    ):
        written = frame.set_axis(index)
        written.to_parquet(tmp_path / "rows.parquet")
        table = read_table(tmp_path / "rows.parquet")
        read = pd.read_parquet(tmp_path / "rows.parquet")
        assert [name for name in table.column_names if name not in index_columns(table)] == list(read.columns)
    frame.to_csv(tmp_path / "rows.csv")
    assert index_columns(read_table(tmp_path / "rows.csv")) == [""]
    pd.read_csv(tmp_path / "rows.csv").to_csv(tmp_path / "again.csv")
    assert index_columns(read_table(tmp_path / "again.csv")) == ["", "Unnamed: 0"]
    pd.read_csv(tmp_path / "again.csv").to_parquet(tmp_path / "again.parquet")
    table = read_table(tmp_path / "again.parquet")
    assert [name for name in table.column_names if name not in index_columns(table)] == ["a", "y"]


def test_metadata_that_is_not_of_pandas() -> None:
    table = pa.table({"a": [1], "__index_level_0__": [2], "Unnamed": [3], "my __index_level_0__": [4]})
    for stored in (b"{", b"[]", b"\xff", b"{}", b'{"index_columns": null}', b'{"index_columns": ["b", 1]}'):
        assert index_columns(table.replace_schema_metadata({"pandas": stored})) == ["__index_level_0__"]


def test_text_that_is_almost_numbers() -> None:
    with pytest.raises(
        UserError, match=r"column 'a' of here holds numbers, but '\?' in row 2 \(2 such rows\); correct"
    ):
        refuse_almost_numbers(objects("1", None, "?", "2.5", "n/k", "3e4"), "a", "here")
    for values in (objects("1", "x"), objects("x", "y", "1"), objects("1", "2"), objects(None, None)):
        refuse_almost_numbers(values, "a", "here")


def test_text_that_is_dates() -> None:
    message = r"column 'day' of here holds dates, such as '2020-01-02' in row 1; make numbers of them"
    with pytest.raises(UserError, match=message):
        refuse_dates(objects("unknown", "2020-01-02", "2020-01-03 12:00", "2020-01-03T12:00:01.5Z"), "day", "here")
    for values in (objects("2020-01-02", "x"), objects("2020-01", "2020-02"), objects("20-01-02"), objects(None)):
        refuse_dates(values, "day", "here")


NUMBERS = st.one_of(st.integers(-(10**20), 10**20), st.floats(-1e300, 1e300).map(lambda v: round(v, 3)))


@given(NUMBERS, st.sampled_from(["{}", " {} ", "{}.0", "{:+}", "{:e}", "0{}"]))
def test_a_number_written_otherwise_is_the_same(number: float, written: str) -> None:
    text = written.format(number)
    try:
        equal = Decimal(text) == Decimal(str(number)) and (isinstance(number, int) or float(text) == number)
    except ArithmeticError:  # such as 1.5.0
        equal = False
    assert same_numbers([text], [str(number)]) == ({text: str(number)} if equal else {})


def test_which_texts_are_the_number_of_a_known_one() -> None:
    assert same_numbers(["1", "3"], ["1.0", "2.0"]) == {"1": "1.0"}
    assert same_numbers(["1.0", "2.0"], ["1", "01", "2"]) == {"2.0": "2"}  # 1 and 01 are two codes
    assert same_numbers(["1.0"], ["1", "x"]) == {}
    assert same_numbers(["x", "inf", "nan"], ["1", "2"]) == {}
    assert same_numbers(["9007199254740993.0"], ["9007199254740992", "9007199254740993"]) == {
        "9007199254740993.0": "9007199254740993"
    }
