"""Features: against scikit-learn, by hand, and after a way through files."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy.stats import kstest
from sklearn.preprocessing import QuantileTransformer, StandardScaler

from ocd_core.errors import UserError
from ocd_core.tasks.tabular import features as module
from ocd_core.tasks.tabular.features import DESCRIPTION, TENSORS, Features


def table(**columns: list[Any]) -> dict[str, Any]:
    """Numbers as float64, texts as objects."""
    found = {}
    for name, values in columns.items():
        text = any(isinstance(v, str) for v in values)
        found[name] = np.array(values, object) if text else np.array([np.nan if v is None else v for v in values])
    return found


def test_by_hand() -> None:
    train = table(a=[0, 2, 4, 6], b=[1.0, None, 3.0, None], c=["y", "x", None, "x"])
    fitted = Features.fit(train, "standard", 0)
    assert fitted.names == ["a", "b", "b is missing", "c = x", "c = y", "c = missing"]
    found = fitted.apply(train, "train")
    root = 5**0.5  # the deviation of 0, 2, 4, 6; that of 1, 3 is 1
    expected = [
        [-3 / root, -1, 0, 0, 1, 0],
        [-1 / root, 0, 1, 1, 0, 0],
        [1 / root, 1, 0, 0, 0, 1],
        [3 / root, 0, 1, 1, 0, 0],
    ]
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, torch.tensor(expected))


def test_what_train_does_not_have() -> None:
    """A gap in a column that had none becomes 0; an unknown category is no category; both are counted."""
    fitted = Features.fit(table(a=[0, 2], c=["x", "y"]), "standard", 0)
    other = table(a=[None, 1], c=["z", None])
    assert fitted.names == ["a", "c = x", "c = y"]
    assert fitted.apply(other, "test").tolist() == [[0, 0, 0], [0, 0, 0]]
    assert fitted.unseen(other) == {"c": ["z", None]}
    assert fitted.unseen(table(a=[1], c=["x"])) == {}


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"a": [1]}, "the val part has no column 'c', which the training rows have"),
        (
            {"a": ["one"], "c": ["x"]},
            "column 'a' of the val part holds 'one' in row 0, but numbers in the training rows",
        ),
    ],
)
def test_other_columns_than_in_training(columns: dict[str, list[Any]], message: str) -> None:
    fitted = Features.fit(table(a=[0, 2], c=["x", "y"]), "standard", 0)
    with pytest.raises(UserError, match=message):
        fitted.apply(table(**columns), "the val part")


def test_a_number_that_is_too_far_from_those_in_training() -> None:
    fitted = Features.fit(table(a=[0, 2], b=[0, 2e-9]), "standard", 0)
    assert fitted.apply(table(a=[1e30], b=[1e-9]), "a row").tolist() == [[pytest.approx(1e30), 0]]
    with pytest.raises(UserError, match="column 'b' of a row is too far from its values in training, in row 1"):
        fitted.apply(table(a=[1, 1], b=[0, 1e30]), "a row")
    fitted = Features.fit(table(a=[0, 2], b=[0, 2e-9]), "quantile", 0)
    assert bool(fitted.apply(table(a=[1e30], b=[1e30]), "a row").isfinite().all())


def test_columns_of_another_type_that_are_possible() -> None:
    """A column of texts without a text, and a category that a file wrote as numbers."""
    fitted = Features.fit(table(a=[0, 2], c=["1", "2"]), "standard", 0)
    other = {"a": np.array([None], object), "c": np.array([2.0])}
    assert fitted.apply(other, "a file").tolist() == [[0, 0, 1]]


@pytest.mark.parametrize("known", [["1", "2"], ["1.0", "2.0"]])
def test_categories_of_numbers_that_are_written_otherwise(known: list[str]) -> None:
    fitted = Features.fit(table(a=[0, 2], c=known), "standard", 0)
    other = {"a": np.array([1.0] * 5), "c": np.array(["2", "2.0", " 1", "3.0", "x"], object)}
    assert fitted.apply(other, "a file")[:, 1:].tolist() == [[0, 1], [0, 1], [1, 0], [0, 0], [0, 0]]
    assert fitted.unseen(other) == {"c": ["3.0", "x"]}


def test_a_column_without_values() -> None:
    for values in ([None, None], ["x", "x"]):
        columns = table(a=[1, 2], gone=values)
        if values[0] is None:
            with pytest.raises(UserError, match=r"column 'gone' is missing in every training row; leave it out"):
                Features.fit(columns, "standard", 0)
        else:
            assert Features.fit(columns, "standard", 0).names == ["a", "gone = x"]


NUMBERS = hnp.arrays(
    np.float64, st.tuples(st.integers(30, 80), st.just(2)), elements=st.floats(-50, 50).map(lambda v: round(v, 1))
)


@settings(max_examples=30)
@given(NUMBERS, st.sampled_from(["quantile", "standard", "none"]))
def test_numbers_are_scikit_learns_and_survive_files(tmp_path_factory: Any, x: Any, transform: str) -> None:
    train = {"a": x[:, 0], "b": x[:, 1]}
    fitted = Features.fit(train, transform, 3)
    found = fitted.apply(train, "train")
    if transform == "standard":
        expected = StandardScaler().fit_transform(x)
    elif transform == "none":
        expected = x
    else:
        count = min(len(x), max(min(len(x) // 30, 1000), 10))
        noise = module.numpy_generator(3, "quantile noise").standard_normal(x.shape)
        noisy = x + np.minimum(1e-3 / np.maximum(x.std(0), 1e-3), x.std(0) / 100) * noise
        expected = QuantileTransformer(n_quantiles=count, output_distribution="normal").fit(noisy).transform(x)
    torch.testing.assert_close(found, torch.from_numpy(expected).float())
    folder: Path = tmp_path_factory.mktemp("features")
    fitted.save(folder)
    again = Features.load(folder)
    assert again.names == fitted.names
    assert torch.equal(again.apply(train, "train"), found)


def test_quantiles_make_a_normal_distribution() -> None:
    x = np.random.default_rng(0).exponential(size=4000)
    found = Features.fit({"x": x}, "quantile", 0).apply({"x": x}, "train")[:, 0]
    assert kstest(found.numpy(), "norm").statistic < 0.02


@pytest.mark.parametrize("scale", [1e-6, 1e-2, 1.0, 1e4])
def test_columns_of_any_scale_are_kept(scale: float) -> None:
    x = np.random.default_rng(0).normal(size=3000) * scale
    found = Features.fit({"x": x}, "quantile", 0).apply({"x": x}, "train")[:, 0]
    assert found.std() == pytest.approx(1, abs=0.05)
    assert np.corrcoef(found, x)[0, 1] > 0.99


def test_names_are_no_categories() -> None:
    columns = table(name=[f"person {i}" for i in range(1001)])
    with pytest.raises(UserError, match=r"column 'name' has 1001 categories, more than 1000.*leave it out"):
        Features.fit(columns, "standard", 0)


def test_files_that_are_missing_or_foreign(tmp_path: Path) -> None:
    Features.fit(table(a=[0, 2], c=["x", "y"]), "standard", 0).save(tmp_path)
    (tmp_path / DESCRIPTION).write_text("{}")
    with pytest.raises(UserError, match=r"features\.json was written by another version: .*; run the stage prepare"):
        Features.load(tmp_path)
    (tmp_path / TENSORS).unlink()
    with pytest.raises(UserError, match=r"features\.safetensors is missing; run the stage prepare first"):
        Features.load(tmp_path)
