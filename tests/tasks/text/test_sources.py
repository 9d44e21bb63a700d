"""Labelled texts from files, what is refused, and the draw of a few of each class."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ocd_core.errors import UserError
from ocd_core.tasks.text.sources import Texts, few_shots, read_texts, subset_of_test
from tests.support.texts import write_rows


def read(folder: Path, name: str = "train.jsonl", text: str = "text", label: str = "label") -> Texts:
    return read_texts(str(folder), {"train": [name]}, text, label)[0]["train"]


def refusal(folder: Path, name: str = "train.jsonl", **columns: str) -> str:
    with pytest.raises(UserError) as error:
        read(folder, name, **columns)
    assert "\n" not in str(error.value)
    return str(error.value)


ROWS = [{"text": 'Füße, "quoted"', "label": 1}, {"text": "null", "label": 0}, {"text": "NA", "label": 1}]


def test_three_formats_hold_the_same_texts(tmp_path: Path) -> None:
    write_rows(tmp_path / "train.jsonl", ROWS)
    (tmp_path / "train.csv").write_text('text,label\n"Füße, ""quoted""",1\nnull,0\nNA,1\n', encoding="utf-8")
    columns = {"text": [r["text"] for r in ROWS], "label": [r["label"] for r in ROWS]}
    pq.write_table(pa.table(columns), tmp_path / "train.parquet")
    for ending in ("jsonl", "csv", "parquet"):
        found = read(tmp_path, f"train.{ending}")
        assert list(found.texts) == columns["text"]
        assert found.label_N.tolist() == columns["label"]
        assert found.select(torch.tensor([2, 0])).source_row_N.tolist() == [2, 0]


@pytest.mark.parametrize("key", ["text", "label"])
def test_a_missing_column(tmp_path: Path, key: str) -> None:
    write_rows(tmp_path / "train.jsonl", ROWS)
    message = refusal(tmp_path, **{key: "nope"})
    assert f"data.{key}_column: {tmp_path}, train part has no column 'nope'; its columns are text, label" in message


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"text": "", "label": 0}, "train part: the text in row 1 is empty"),
        ({"text": " \t ", "label": 0}, "the text in row 1 is empty"),
        ({"text": None, "label": 0}, "the text in row 1 is missing"),
        ({"text": "a", "label": None}, "the label in row 1 is missing (1 such rows)"),
        ({"text": "a", "label": -1}, "label -1 in row 1 is below 0 (1 such rows)"),
        ({"text": "a", "label": 0.5}, "column 'label' holds double, not integer labels"),
    ],
)
def test_bad_rows(tmp_path: Path, row: dict[str, Any], message: str) -> None:
    write_rows(tmp_path / "train.jsonl", [{"text": "fine", "label": 0}, row])
    assert message in refusal(tmp_path)


def test_columns_of_another_kind(tmp_path: Path) -> None:
    write_rows(tmp_path / "train.jsonl", [{"text": 3, "label": "good"}])
    assert "column 'label' holds string, not integer labels" in refusal(tmp_path)
    assert "column 'text' holds int64, not texts" in refusal(tmp_path, label="text")


@pytest.mark.parametrize("name", ["train.jsonl", "train.csv", "train.parquet"])
def test_what_is_not_utf_8(tmp_path: Path, name: str) -> None:
    latin = "café".encode("latin-1")
    if name.endswith("parquet"):
        text = pa.array([latin], pa.binary()).view(pa.string())
        pq.write_table(pa.table({"text": text, "label": [0]}), tmp_path / name)
    else:
        lines = {"jsonl": b'{"text": "' + latin + b'", "label": 0}\n', "csv": b"text,label\n" + latin + b",0\n"}
        (tmp_path / name).write_bytes(lines[name.split(".")[1]])
    assert "UTF-8" in refusal(tmp_path, name)


@settings(max_examples=30)
@given(
    extra=st.lists(st.integers(0, 3), max_size=30),
    shots=st.integers(2, 6),
    data=st.data(),
    seed=st.integers(0, 2**31),
)
def test_shots_are_drawn_from_each_class_once(extra: list[int], shots: int, data: st.DataObject, seed: int) -> None:
    labels = data.draw(st.permutations([*range(4)] * shots + extra))
    label_N = torch.tensor(labels)
    val_shots = data.draw(st.integers(1, shots - 1))
    train, val = few_shots(label_N, shots, val_shots, seed, "here")
    assert label_N[val].tolist() == sorted([*range(4)] * val_shots)
    assert label_N[train].tolist() == sorted([*range(4)] * (shots - val_shots))
    assert len({*train.tolist(), *val.tolist()}) == 4 * shots
    again = few_shots(label_N, shots, val_shots, seed, "here")
    assert torch.equal(again[0], train)
    assert torch.equal(again[1], val)


def test_too_few_of_a_class() -> None:
    with pytest.raises(UserError, match=r"^here: class 1 has 1 rows, but data\.shots asks for 2 of each .*0\.\.2"):
        few_shots(torch.tensor([0, 0, 1, 2, 2]), 2, 1, 0, "here")
    with pytest.raises(UserError, match=r"class 0 has 0 rows, .*; the labels count from 1, so subtract 1$"):
        few_shots(torch.tensor([1, 2, 1, 2]), 2, 1, 0, "here")
    with pytest.raises(UserError, match="all labels are 0; a classification needs at least two classes"):
        few_shots(torch.zeros(4).long(), 2, 1, 0, "here")


def test_a_subset_of_the_test_part() -> None:
    assert subset_of_test(5, None, "here").tolist() == [0, 1, 2, 3, 4]
    some = subset_of_test(50, 7, "here").tolist()
    assert some == sorted(set(some))
    assert len(some) == 7
    with pytest.raises(UserError, match=r"data\.test_size: 6 texts are asked for, but here has 5"):
        subset_of_test(5, 6, "here")
