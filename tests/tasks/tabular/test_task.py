"""The domain as a whole: the protocol, the splits, single rows, real tables."""

import json
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch

from ocd_core.errors import UserError
from ocd_core.samples import SPLITS, groups_of, whole_split
from ocd_core.tasks.tabular.task import Tabular
from ocd_core.testing import check_task
from ocd_core.weights import read_tensors
from tests.tasks.tabular.tables import columns, tabular_data, task, write


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write(tmp_path / "raw", columns())


def prepared(domain: Tabular, dest: Path) -> dict[str, Any]:
    summary = domain.prepare(dest)
    domain.bind(dest)
    return summary


@pytest.mark.parametrize(
    "changes",
    [
        {
            "categories": ["floor"],
            "group": "owner",
            "ranking_at": 3,
            "target": "stars",
            "features": ["a", "colour", "floor"],
        },
        {"kind": "classification", "target": "kind", "transform": "quantile"},
    ],
    ids=["regression", "classification"],
)
def test_the_protocol(folder: Path, tmp_path: Path, changes: dict[str, Any]) -> None:
    one = write(tmp_path / "one", {name: values[1:2] for name, values in columns().items()}, "row.parquet")
    check_task(task(path=str(folder), **changes), tmp_path / "check", example=one / "row.parquet")


def test_splits_hold_each_row_once_with_its_own_values(folder: Path, tmp_path: Path) -> None:
    domain = task(path=str(folder), features=["a"], transform="none")
    summary = prepared(domain, tmp_path / "prepared")
    rows = {s: read_tensors(tmp_path / "prepared" / f"{s}.safetensors")["source_row"] for s in SPLITS}
    assert {s: len(r) for s, r in rows.items()} == {"train": 70, "val": 20, "test": 30}
    assert sorted(torch.cat(list(rows.values())).tolist()) == list(range(120))
    values = columns()
    mean, std = (summary["target"][key] for key in ("mean", "std"))
    y = np.array(values["y"])
    assert mean == pytest.approx(y[rows["train"]].mean())  # of the training rows alone
    assert std == pytest.approx(y[rows["train"]].std())
    for split in SPLITS:
        batch = (opened := domain.open(tmp_path / "prepared", split)).batch(whole_split(opened))
        np.testing.assert_allclose(batch.inputs[0][:, 0], np.array(values["a"])[rows[split]], rtol=1e-6)
        assert isinstance(batch.target, torch.Tensor)
        np.testing.assert_allclose(batch.target[:, 0] * std + mean, y[rows[split]], rtol=1e-5)


def test_labels_of_classes_are_smoothed_for_training(folder: Path, tmp_path: Path) -> None:
    domain = task(path=str(folder), kind="classification", target="kind", features=["a"])
    prepared(domain, tmp_path / "prepared")
    output = torch.randn(9, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    target = torch.arange(9) % 2
    smoothed = 0.7 * torch.eye(2, dtype=torch.float64)[target] + 0.3 / 2
    wanted = -(smoothed * torch.log_softmax(output, 1)).sum(1)
    torch.testing.assert_close(domain.training_loss(output, target, 0.3), wanted)
    torch.testing.assert_close(domain.training_loss(output, target, 0.0), domain.loss(output, target))
    number = task(path=str(folder), features=["a"])
    prepared(number, tmp_path / "number")
    torch.testing.assert_close(
        number.training_loss(output[:, :1], output[:, 1:], 0.0), (output[:, 0] - output[:, 1]) ** 2
    )
    with pytest.raises(UserError, match="no labels to smooth"):
        number.training_loss(output[:, :1], output[:, 1:], 0.3)


def test_groups_stay_together(folder: Path, tmp_path: Path) -> None:
    domain = task(path=str(folder), group="owner", features=["a"])
    summary = prepared(domain, tmp_path / "prepared")
    assert {s: v["groups"] for s, v in summary["splits"].items()} == {"train": 11, "val": 4, "test": 5}
    seen: set[int] = set()
    for split in SPLITS:
        groups = groups_of(domain.open(tmp_path / "prepared", split))
        assert groups is not None
        own = set(groups.tolist())
        assert not own & seen
        seen |= own


def test_a_group_in_two_parts_is_refused(tmp_path: Path) -> None:
    values = columns(24)
    write(tmp_path, values, "rows.parquet")
    write(tmp_path, {name: v[:6] for name, v in values.items()}, "test.parquet")
    domain = task(path=str(tmp_path), group="owner", test_files=["test.parquet"], test_size=None, val_size=3)
    with pytest.raises(UserError, match=r"1 groups \(queries\) are in both (train|val) and test"):
        domain.prepare(tmp_path / "prepared")


def test_the_summary_counts_gaps_and_unknown_categories(tmp_path: Path) -> None:
    values = columns(60)
    write(tmp_path, values)
    write(tmp_path, {**{n: v[:3] for n, v in values.items()}, "colour": ["pink", "red", None]}, "test.parquet")
    domain = task(path=str(tmp_path), test_files=["test.parquet"], test_size=None, val_size=10)
    summary = prepared(domain, tmp_path / "prepared")
    test = summary["splits"]["test"]
    assert test == {
        "samples": 3,
        "taken_from": "test",
        "missing": {"b": 1, "colour": 1},
        "unseen_categories": {"colour": 1},
    }
    json.dumps(summary)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"target": "kind"}, "'kind' holds text, such as '(small|large)'; set data.kind to classification"),
        ({"kind": "classification", "target": "same"}, "'same' has one class in the training rows, 'x'"),
        ({"test_size": 500}, r"data\.test_size: 500 samples are asked for, but 120"),
    ],
)
def test_what_cannot_be_prepared_leaves_nothing(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    folder = write(tmp_path / "raw", {**columns(), "same": ["x"] * 120})
    with pytest.raises(UserError, match=message):
        task(path=str(folder), **changes).prepare(tmp_path / "prepared")
    assert not (tmp_path / "prepared").exists()


def test_a_class_that_train_does_not_have_leaves_nothing(tmp_path: Path) -> None:
    write(tmp_path, columns(60))
    write(tmp_path, {**{n: v[:3] for n, v in columns().items()}, "kind": ["large", "huge", "small"]}, "test.parquet")
    domain = task(path=str(tmp_path), kind="classification", target="kind", test_files=["test.parquet"], test_size=None)
    with pytest.raises(UserError, match="the test split has the class 'huge', which no training row has"):
        domain.prepare(tmp_path / "prepared")
    assert not (tmp_path / "prepared").exists()


def test_prepared_data_of_other_params(folder: Path, tmp_path: Path) -> None:
    domain = task(path=str(folder))
    with pytest.raises(UserError, match="run the stage prepare first"):
        domain.build_model()
    with pytest.raises(UserError, match="run the stage prepare first"):
        domain.bind(tmp_path)
    prepared(domain, tmp_path / "prepared")
    other = task(path=str(folder), features=["a"])
    prepared(other, tmp_path / "other")
    with pytest.raises(UserError, match="does not hold rows of 1 features; run the stage prepare again"):
        other.open(tmp_path / "prepared", "val")


def test_one_row_for_prediction(folder: Path, tmp_path: Path) -> None:
    domain = task(path=str(folder), features=["a", "colour"])
    prepared(domain, tmp_path / "prepared")
    rows = read_tensors(tmp_path / "prepared" / "val.safetensors")["source_row"]
    values, row = columns(), int(rows[4])
    (tmp_path / "row.csv").write_text(f"colour,a,more\n{values['colour'][row] or ''},{values['a'][row]},1\n")
    batch = domain.open(tmp_path / "prepared", "val").batch(torch.tensor([4]))
    assert torch.equal(domain.read_input(tmp_path / "row.csv")[0], batch.inputs[0])
    (tmp_path / "two.csv").write_text("colour,a\nred,1\nred,2\n")
    (tmp_path / "less.csv").write_text("colour\nred\n")
    for name, message in (("two", "has 2 rows"), ("less", "has no column 'a'")):
        with pytest.raises(UserError, match=message):
            domain.read_input(tmp_path / f"{name}.csv")


def test_a_category_of_numbers_is_the_same_in_a_csv_file(tmp_path: Path) -> None:
    """Trained on a Parquet file whose column has a gap, so that pandas made it floating point."""
    values = columns()
    floors = [None if i % 9 == 0 else float(v) for i, v in enumerate(values["floor"])]
    folder = write(tmp_path / "raw", {"floor": floors, "a": values["a"], "y": values["y"]})
    domain = task(path=str(folder), categories=["floor"])
    prepared(domain, tmp_path / "prepared")
    assert domain.features.names == ["a", "floor = 0", "floor = 1", "floor = 2", "floor = missing"]
    with warnings.catch_warnings(action="error"):
        for text, place in (("1.0", 2), ("1", 2), ("2.00", 3), ("", 4)):
            (tmp_path / "row.csv").write_text(f"a,floor\n1.5,{text}\n")
            (x_1F,) = domain.read_input(tmp_path / "row.csv")
            assert [i for i, value in enumerate(x_1F[0].tolist()) if i and value] == [place]


def test_a_category_that_no_training_row_has_is_warned_of(folder: Path, tmp_path: Path) -> None:
    domain = task(path=str(folder), features=["a", "kind", "floor"], categories=["floor"])
    prepared(domain, tmp_path / "prepared")
    for fields, message in (
        ("huge,1", "has the category 'huge' in column 'kind', as no training row has"),
        ("small,4.0", "has the category '4.0' in column 'floor', as no training row has"),
        (",1", "has no value in column 'kind', as no training row has"),
    ):
        (tmp_path / "row.csv").write_text(f"a,kind,floor\n1.5,{fields}\n")
        with pytest.warns(UserWarning, match=rf"row\.csv {message}"):
            (x_1F,) = domain.read_input(tmp_path / "row.csv")
        assert float(x_1F[0, 1:].sum()) == 1  # of the two columns of categories, one is known


def test_the_summary_names_columns_that_only_number_the_rows(tmp_path: Path) -> None:
    frame = pd.DataFrame(columns()).sample(frac=1, random_state=0)
    frame.to_parquet(tmp_path / "rows.parquet")
    summary = prepared(task(path=str(tmp_path)), tmp_path / "prepared")
    assert summary["left_out"] == ["__index_level_0__"]
    write(tmp_path / "plain", columns())
    assert "left_out" not in prepared(task(path=str(tmp_path / "plain")), tmp_path / "other")


def test_california_is_complete(shared_data: Path, tmp_path: Path) -> None:
    data = tabular_data(
        path=str(shared_data / "california_housing"), train_files=["california_housing.parquet"], target="MedHouseVal",
        transform="quantile", train_size=13209, val_size=3303, test_size=4128,
    )  # fmt: skip
    domain = Tabular(data, "rtdl_mlp", {"blocks": 2, "width": 8})
    summary = prepared(domain, tmp_path)
    assert {s: v["samples"] for s, v in summary["splits"].items()} == {"train": 13209, "val": 3303, "test": 4128}
    split = domain.open(tmp_path, "train")
    x = split.batch(whole_split(split)).inputs[0]
    assert x.shape == (13209, 8)
    assert x.mean(0).abs().max() < 0.05
    assert (x.std(0) - 1).abs().max() < 0.2
    raw = pq.read_table(shared_data / "california_housing" / "california_housing.parquet").column("MedHouseVal")
    rows = read_tensors(tmp_path / "test.safetensors")
    found = rows["target"][:, 0].double() * summary["target"]["std"] + summary["target"]["mean"]
    np.testing.assert_allclose(found, raw.to_numpy()[rows["source_row"]], rtol=1e-5)


def test_letor_keeps_its_queries(shared_data: Path, tmp_path: Path) -> None:
    data = tabular_data(
        source="svmlight", path=str(shared_data / "letor"), train_files=["train.svmlight"], target=None,
        test_files=["test.svmlight"], transform="quantile", ranking_at=10, val_size=500, test_size=None,
    )  # fmt: skip
    domain = Tabular(data, "mlp", {"hidden": [4]})
    summary = prepared(domain, tmp_path)
    assert summary["features"] == 46
    splits = summary["splits"]
    assert splits["train"]["groups"] + splits["val"]["groups"] == 156
    assert (splits["test"]["samples"], splits["test"]["groups"]) == (997, 68)
    assert 500 <= splits["val"]["samples"] < 600
    sizes = [int(line) for line in (shared_data / "letor" / "test.svmlight.query").read_text().split()]
    groups = groups_of(domain.open(tmp_path, "test"))
    assert groups is not None
    assert torch.unique_consecutive(groups, return_counts=True)[1].tolist() == sizes
