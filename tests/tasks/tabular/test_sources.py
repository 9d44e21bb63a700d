"""Columns from files: types, gaps, and what is refused."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import sklearn.datasets

from ocd_core.errors import UserError
from ocd_core.tasks.tabular.sources import as_text, is_missing, read_file, read_parts, to_column
from tests.tasks.tabular.tables import columns, tabular_data, write


def test_numbers_and_texts_with_gaps(tmp_path: Path) -> None:
    values = columns(30)
    parts, origin = read_parts(tabular_data(path=str(write(tmp_path, values)), categories=["floor"], group="owner"))
    table = parts["train"]
    assert list(table.features) == ["a", "b", "colour", "floor", "kind"]
    assert origin.files == {"train": ["rows.parquet"]}
    np.testing.assert_array_equal(table.features["a"], values["a"])
    assert [None if np.isnan(v) else v for v in table.features["b"]] == values["b"]
    assert table.features["colour"].tolist() == values["colour"]
    assert table.features["floor"].tolist() == [str(v) for v in values["floor"]]
    np.testing.assert_array_equal(table.target, values["y"])
    assert table.group is not None
    assert table.group.tolist() == values["owner"]
    some = table.select(np.array([3, 0, 3]))
    assert some.features["colour"].tolist() == [values["colour"][i] for i in (3, 0, 3)]
    assert some.group is not None
    assert some.group.tolist() == [0, 0, 0]


def test_csv_files_with_gaps(tmp_path: Path) -> None:
    values = columns(30)
    lines = [",".join("" if v is None else str(v) for v in row) for row in zip(*values.values(), strict=True)]
    (tmp_path / "rows.csv").write_text("\n".join([",".join(values), *lines, ""]))
    from_csv = read_parts(tabular_data(path=str(tmp_path), train_files=["rows.csv"]))[0]["train"]
    from_parquet = read_parts(tabular_data(path=str(write(tmp_path, values))))[0]["train"]
    for name, found in from_csv.features.items():
        np.testing.assert_array_equal(found, from_parquet.features[name])
    np.testing.assert_array_equal(from_csv.target, from_parquet.target)


def test_chosen_features_keep_the_tables_order(tmp_path: Path) -> None:
    folder = write(tmp_path, columns(10))
    parts, _ = read_parts(tabular_data(path=str(folder), features=["colour", "a"]))
    assert list(parts["train"].features) == ["a", "colour"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"target": "price"}, r"data\.target: the train part has no column 'price' \(it has a, b, colour"),
        ({"group": "query"}, r"data\.group: the train part has no column 'query'"),
        ({"features": ["a", "age"]}, r"data\.features: the train part has no column 'age'"),
        ({"categories": ["city"]}, r"data\.categories: the train part has no column 'city'"),
        ({"features": ["a"], "categories": ["floor"]}, r"data\.categories: 'floor' is not among the features"),
        ({"target": "b"}, r"data\.target: 'b' is missing in row 0 of the train part \(5 such rows\)"),
        ({"group": "colour"}, r"data\.group: 'colour' is missing in some rows"),
    ],
)
def test_columns_that_cannot_be(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_parts(tabular_data(path=str(write(tmp_path, columns(30))), **changes))


def test_a_table_of_a_target_alone(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no features besides the target 'y'"):
        read_parts(tabular_data(path=str(write(tmp_path, {"y": [1.0, 2.0]}))))


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
    values = np.array([3.0, 0.5, np.nan, 1e6, -2.0])
    assert as_text(values).tolist() == ["3", "0.5", None, "1000000", "-2"]
    assert is_missing(values).tolist() == is_missing(as_text(values)).tolist() == [False, False, True, False, False]


def test_california_from_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    frame = pd.DataFrame({"MedInc": [1.0, 2.0], "MedHouseVal": [3.0, 4.0]})
    monkeypatch.setattr(sklearn.datasets, "fetch_california_housing", lambda as_frame: SimpleNamespace(frame=frame))
    data = tabular_data(source="california", path=None, train_files=None, target="MedHouseVal")
    table = read_parts(data)[0]["train"]
    assert {name: v.tolist() for name, v in table.features.items()} == {"MedInc": [1.0, 2.0]}
    assert table.target.tolist() == [3.0, 4.0]

    def offline(as_frame: bool) -> None:
        raise OSError("no network")

    monkeypatch.setattr(sklearn.datasets, "fetch_california_housing", offline)
    with pytest.raises(UserError, match=r"data\.source california: .*no network.*use source table"):
        read_parts(data)


LINES = """2 qid:7 1:0.5 3:1.0 #docid = a
0 qid:7 2:0.25 #docid = b
1 qid:9 1:1.0
"""


def svmlight(folder: Path, **changes: Any) -> Any:
    values = {"source": "svmlight", "target": None, "train_files": ["train.txt"], "test_files": ["test.txt"]}
    return tabular_data(path=str(folder), test_size=None, **values, **changes)


def test_svmlight_files_with_queries(tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_text(LINES)
    (tmp_path / "test.txt").write_text("1 qid:11 4:2.0\n")
    parts, origin = read_parts(svmlight(tmp_path))
    train = np.stack(list(parts["train"].features.values()), 1)
    # the test file's fourth feature is 0 in train
    np.testing.assert_array_equal(train, [[0.5, 0, 1, 0], [0, 0.25, 0, 0], [1, 0, 0, 0]])
    assert parts["train"].target.tolist() == [2, 0, 1]
    assert parts["train"].group is not None
    assert parts["train"].group.tolist() == [7, 7, 9]
    assert np.stack(list(parts["test"].features.values()), 1).tolist() == [[0, 0, 0, 2]]
    assert list(parts["train"].features) == [f"feature {i}" for i in (1, 2, 3, 4)]
    assert origin.files == {"train": ["train.txt"], "test": ["test.txt"]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("2 qid:7 one:0.5\n", "is not in svmlight format"),
        ("", "holds no rows"),
        ("2 1:0.5\n", "lacks query ids"),
        ("2 qid:1 1:nan\n", "not finite"),
    ],
)
def test_bad_svmlight_files(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "train.txt").write_text(text)
    (tmp_path / "test.txt").write_text("1 qid:11 1:2.0\n")
    with pytest.raises(UserError, match=message) as error:
        read_parts(svmlight(tmp_path))
    assert "train.txt" in str(error.value)


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data\.path: there is no folder"):
        read_parts(svmlight(tmp_path / "absent"))


def test_single_files(tmp_path: Path) -> None:
    write(tmp_path, {"a": [1.5], "c": ["x"]}, "one.parquet")
    (tmp_path / "one.csv").write_text("a,c\n1.5,x\n")
    for name in ("one.parquet", "one.csv"):
        assert {k: v.tolist() for k, v in read_file(tmp_path / name).items()} == {"a": [1.5], "c": ["x"]}
    (tmp_path / "bad.parquet").write_bytes(b"no")
    for name, message in (("bad.parquet", "not a readable parquet"), ("no.csv", "does not exist"), ("x.txt", "named")):
        with pytest.raises(UserError, match=message):
            read_file(tmp_path / name)
