"""Columns: types, gaps, text that is numbers, single files."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ocd_core.errors import UserError
from ocd_core.tasks.tabular.columns import LARGEST, are_numbers, is_missing, numbers_of, read_file, texts_of, to_column
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
    assert {k: v.tolist() for k, v in read_file(tmp_path / "one.parquet").items()} == {"a": [1.5], "c": ["x"]}
    found = {k: v.tolist() for k, v in read_file(tmp_path / "one.CSV").items()}
    assert found == {"a": ["1.5"], "c": ["x"], "gone": [None], "word": [None]}
    assert list(read_file(tmp_path / "one.CSV", ["c", "other"])) == ["c"]
    (tmp_path / "bad.parquet").write_bytes(b"no")
    for name, message in (("bad.parquet", "not a readable parquet"), ("no.csv", "does not exist")):
        with pytest.raises(UserError, match=message):
            read_file(tmp_path / name)
    (tmp_path / "x.txt").write_text("a\n1\n")
    with pytest.raises(UserError, match=r"is not named \.parquet or \.csv"):
        read_file(tmp_path / "x.txt")


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
