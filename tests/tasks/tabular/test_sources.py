"""Columns from files: types, gaps, and what is refused."""

from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import sklearn.datasets
from datasets import Dataset, DatasetDict

from ocd_core.errors import UserError
from ocd_core.tasks.hugging_face import Origin
from ocd_core.tasks.tabular import sources
from ocd_core.tasks.tabular.sources import read_parts
from tests.tasks.tabular.tables import columns, tabular_data, write


def test_numbers_and_texts_with_gaps(tmp_path: Path) -> None:
    values = columns(30)
    parts, origin = read_parts(tabular_data(path=str(write(tmp_path, values)), categories=["floor"], group="owner"))
    table = parts["train"]
    assert list(table.features) == ["a", "b", "colour", "floor", "stars", "kind"]
    assert origin.files == {"train": ["rows.parquet"]}
    np.testing.assert_array_equal(table.features["a"], values["a"])
    assert [None if np.isnan(v) else v for v in table.features["b"]] == values["b"]
    assert table.features["colour"].tolist() == values["colour"]
    assert table.features["floor"].tolist() == [str(v) for v in values["floor"]]
    np.testing.assert_array_equal(table.target, values["y"])
    assert table.group is not None
    assert table.group.tolist() == [str(v) for v in values["owner"]]
    some = table.select(np.array([3, 0, 3]))
    assert some.features["colour"].tolist() == [values["colour"][i] for i in (3, 0, 3)]
    assert some.group is not None
    assert some.group.tolist() == ["0", "0", "0"]


def test_csv_files_with_gaps(tmp_path: Path) -> None:
    values = columns(30)
    lines = [",".join("" if v is None else str(v) for v in row) for row in zip(*values.values(), strict=True)]
    (tmp_path / "rows.csv").write_text("\n".join([",".join(values), *lines, ""]))
    from_csv = read_parts(tabular_data(path=str(tmp_path), train_files=["rows.csv"]))[0]["train"]
    from_parquet = read_parts(tabular_data(path=str(write(tmp_path, values))))[0]["train"]
    for name, found in from_csv.features.items():
        np.testing.assert_array_equal(found, from_parquet.features[name])
    np.testing.assert_array_equal(from_csv.target, from_parquet.target)


def csv(folder: Path, name: str, *lines: str) -> None:
    (folder / name).write_text("\n".join([*lines, ""]))


def csv_parts(folder: Path, **changes: Any) -> Any:
    return read_parts(tabular_data(path=str(folder), train_files=["train.csv"], test_files=["test.csv"], **changes))[0]


def test_a_csv_column_has_one_type_in_all_rows_and_parts(tmp_path: Path) -> None:
    """Numbers that begin whole, a column that is empty at first, a test part that looks like numbers."""
    rows = [f"1,,A{i % 2},{i}" for i in range(12_000)] + ["1.5,x,01,2"]
    csv(tmp_path, "train.csv", "a,late,c,y", *rows)
    csv(tmp_path, "test.csv", "a,late,c,y", "2.5,y,01,3", "7,x,A1,0.5")
    parts = csv_parts(tmp_path)
    assert parts["train"].features["a"][-2:].tolist() == [1.0, 1.5]
    assert parts["train"].features["late"][-2:].tolist() == [None, "x"]
    assert parts["test"].features["a"].tolist() == [2.5, 7.0]
    assert parts["test"].features["c"].tolist() == ["01", "A1"]
    assert parts["test"].target.tolist() == [3.0, 0.5]


def test_numbers_with_leading_zeros_are_categories_if_the_params_say_so(tmp_path: Path) -> None:
    csv(tmp_path, "train.csv", "code,y", "01,1", "1,2", "01,3")
    csv(tmp_path, "test.csv", "code,y", "01,1")
    parts = csv_parts(tmp_path, categories=["code"])
    assert parts["train"].features["code"].tolist() == ["01", "1", "01"]
    assert csv_parts(tmp_path)["train"].features["code"].tolist() == [1.0, 1.0, 1.0]


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        (["a,y", "x,1"], r"column 'a' of the test part holds 'x' in row 0, but numbers in the training rows"),
        (["y", "1"], r"the test part has no column 'a', which the train part has"),
        (["a", "1"], r"the test part has no column 'y', which the train part has"),
        (["a,a,y", "1,1,1"], r"has several columns named 'a'; rename them"),
        (["a,y"], r"data\.test_files: test\.csv in .* holds no rows"),
        ([], r"test\.csv is not a readable csv file"),
    ],
)
def test_csv_parts_that_do_not_match(tmp_path: Path, lines: list[str], message: str) -> None:
    csv(tmp_path, "train.csv", "a,y", "1,1", "2,2")
    csv(tmp_path, "test.csv", *lines)
    with pytest.raises(UserError, match=message):
        csv_parts(tmp_path)


def test_columns_that_are_not_used_do_no_harm(tmp_path: Path) -> None:
    csv(tmp_path, "train.csv", "a,free,y", "1,,1", "2,,2")
    csv(tmp_path, "test.csv", "free,y,a", "text,3,4")
    parts = csv_parts(tmp_path, features=["a"])
    assert list(parts["train"].features) == ["a"]
    assert parts["test"].features["a"].tolist() == [4.0]


def test_files_of_a_part_are_joined(tmp_path: Path) -> None:
    csv(tmp_path, "1.csv", "a,y", "1,1")
    csv(tmp_path, "2.csv", "y,a", "2,x")
    table = read_parts(tabular_data(path=str(tmp_path), train_files=["1.csv", "2.csv"]))[0]["train"]
    assert table.features["a"].tolist() == ["1", "x"]
    assert table.target.tolist() == [1.0, 2.0]
    csv(tmp_path, "2.csv", "y,b", "2,x")
    with pytest.raises(UserError, match=r"1\.csv and 2\.csv have different columns \('a'\)"):
        read_parts(tabular_data(path=str(tmp_path), train_files=["1.csv", "2.csv"]))


@pytest.mark.parametrize("names", [{"train_files": ["1.csv", "2.PARQUET"]},
                                   {"train_files": ["2.PARQUET"], "test_files": ["1.csv"]}])  # fmt: skip
def test_files_of_different_formats_are_refused(tmp_path: Path, names: dict[str, list[str]]) -> None:
    csv(tmp_path, "1.csv", "a,y", "1,1", "2,2")
    write(tmp_path, {"a": [1.0, 2.0], "y": [1.0, 2.0]}, "2.PARQUET")
    with pytest.raises(UserError, match=r"data\.path: 1\.csv and 2\.PARQUET have different formats; use one for all"):
        read_parts(tabular_data(path=str(tmp_path), **names))


def test_large_numbers_of_groups_stay_apart(tmp_path: Path) -> None:
    write(tmp_path, {"a": [1, 2], "user": [9007199254740993, 9007199254740992], "y": [1.0, 2.0]})
    table = read_parts(tabular_data(path=str(tmp_path), group="user"))[0]["train"]
    assert table.group is not None
    assert table.group.tolist() == ["9007199254740993", "9007199254740992"]


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


def indexed() -> pd.DataFrame:
    """Rows sorted by their label, whose index tells it; some are left out, so that pandas stores the index."""
    frame = pd.DataFrame({"a": np.arange(20.0) % 7, "y": [0.0] * 10 + [1.0] * 10})
    return frame[frame.index % 3 > 0]


def test_the_index_of_pandas_is_no_feature(tmp_path: Path) -> None:
    indexed().to_parquet(tmp_path / "rows.parquet")
    indexed().to_csv(tmp_path / "rows.csv")
    for name, index in (("rows.parquet", "__index_level_0__"), ("rows.csv", "")):
        parts, origin = read_parts(tabular_data(path=str(tmp_path), train_files=[name]))
        assert list(parts["train"].features) == ["a"]
        assert origin.left_out == [index]
        chosen, origin = read_parts(tabular_data(path=str(tmp_path), train_files=[name], features=["a", index]))
        assert chosen["train"].features[index].tolist() == indexed().index.tolist()
        assert origin.left_out == []


def test_an_index_with_a_name_is_used_where_the_params_name_it(tmp_path: Path) -> None:
    indexed().rename_axis("who").to_parquet(tmp_path / "rows.parquet")
    plain = indexed().reset_index(names="who")
    plain.to_parquet(tmp_path / "plain.parquet")

    def read(train: str, test: str, **changes: Any) -> Any:
        return read_parts(tabular_data(path=str(tmp_path), train_files=[train], test_files=[test], **changes))

    parts, origin = read("rows.parquet", "plain.parquet")
    assert {name: list(part.features) for name, part in parts.items()} == {"train": ["a"], "test": ["a"]}
    assert origin.left_out == ["who"]
    grouped, origin = read("rows.parquet", "plain.parquet", group="who")
    assert grouped["train"].group.tolist() == [str(i) for i in plain["who"]]
    assert origin.left_out == []
    # a column of the training rows that only the test file calls its index stays a feature
    parts, origin = read("plain.parquet", "rows.parquet")
    assert {name: sorted(part.features) for name, part in parts.items()} == {name: ["a", "who"] for name in parts}


def test_several_columns_without_a_name_do_no_harm(tmp_path: Path) -> None:
    csv(tmp_path, "train.csv", ",,a,y", "1,x,2,1", "2,z,3,2")
    csv(tmp_path, "test.csv", "a,y", "2,1")
    parts = csv_parts(tmp_path)
    assert {tuple(part.features) for part in parts.values()} == {("a",)}


def test_the_index_of_a_table_on_the_hub_is_no_feature(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the library reads it: of a Parquet file by the name that pandas gives it, of a CSV file as `Unnamed: 0`."""

    @contextmanager
    def opened(path: str, patterns: Any) -> Any:
        yield DatasetDict({part: Dataset.from_dict(values) for part in patterns}), Origin({"train": ["a"]}, None)

    monkeypatch.setattr(sources, "opened", opened)
    values = {"Unnamed: 0": [0, 1], "a": [2, 3], "__index_level_0__": [4, 5], "y": [0.0, 1.0]}
    data = tabular_data(path="someone/rows", test_files=["test.parquet"], test_size=None)
    parts, origin = read_parts(data)
    assert {tuple(part.features) for part in parts.values()} == {("a",)}
    assert origin.left_out == ["Unnamed: 0", "__index_level_0__"]
    data = tabular_data(path="someone/rows", features=["Unnamed: 0"])
    assert list(read_parts(data)[0]["train"].features) == ["Unnamed: 0"]


def test_one_slip_in_a_column_of_numbers_is_refused_unless_they_are_categories(tmp_path: Path) -> None:
    csv(tmp_path, "train.csv", "a,code,y", "1.5,7,1", "?,x,2", "3,7,3", "4,8,1")
    csv(tmp_path, "test.csv", "a,code,y", "2,x,1")
    with pytest.raises(
        UserError, match=r"column 'a' of the train part holds numbers, but '\?' in row 1 \(1 such rows\)"
    ):
        csv_parts(tmp_path, features=["a"])
    assert csv_parts(tmp_path, features=["code"], categories=["code"])["test"].features["code"].tolist() == ["x"]
    # text in a Parquet file stays text, and a group or a class may be anything
    write(tmp_path, {"a": ["1.5", "?", "3"], "y": [1.0, 2.0, 3.0]})
    assert read_parts(tabular_data(path=str(tmp_path)))[0]["train"].features["a"].tolist() == ["1.5", "?", "3"]
    csv(tmp_path, "train.csv", "a,code,y", "1.5,7,1", "2,7,?", "3,x,3", "4,8,1")
    csv(tmp_path, "test.csv", "a,code,y", "2,x,1")
    assert csv_parts(tmp_path, group="code", kind="classification")["train"].target.tolist() == ["1", "?", "3", "1"]


@pytest.mark.parametrize("name", ["rows.csv", "rows.parquet"])
def test_dates_as_text_are_refused_unless_they_are_categories(tmp_path: Path, name: str) -> None:
    values = {"day": ["2020-01-01", "2020-01-02", None], "a": [1.0, 2.0, 3.0], "y": [1.0, 2.0, 3.0]}
    write(tmp_path, values)
    pd.DataFrame(values).to_csv(tmp_path / "rows.csv", index=False)
    with pytest.raises(UserError, match=r"column 'day' of the train part holds dates, such as '2020-01-01' in row 0"):
        read_parts(tabular_data(path=str(tmp_path), train_files=[name]))
    for changes in ({"features": ["a"]}, {"categories": ["day"]}):
        read_parts(tabular_data(path=str(tmp_path), train_files=[name], **changes))


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
