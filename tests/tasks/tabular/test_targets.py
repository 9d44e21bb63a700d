"""Numbers and classes as targets."""

import math
from typing import Any

import numpy as np
import pytest
import torch

from ocd_core.errors import UserError
from ocd_core.tasks.tabular.targets import Classes, Number, restored


def objects(*values: Any) -> Any:
    return np.array(values, object)


def test_numbers_are_standardised_and_measured_in_their_unit() -> None:
    targets = Number.fit(np.array([10.0, 20.0, 30.0, 40.0]), "price")
    assert (targets.mean, targets.std) == (25.0, math.sqrt(125))
    y = targets.encode(np.array([25.0, 25 + math.sqrt(125)]), "test")
    assert y.tolist() == [[0.0], [1.0]]
    output = torch.tensor([[0.1], [0.5]])
    torch.testing.assert_close(targets.loss(output, y), torch.tensor([0.01, 0.25]))
    rmse = targets.metrics(None)[0]
    assert rmse.per_sample is not None
    found = rmse.finish(float(rmse.per_sample(output, y).mean()))
    assert found == pytest.approx(math.sqrt(125 * 0.26 / 2), rel=1e-6)
    assert targets.in_words(torch.tensor([[2.0]]))["value"] == pytest.approx(25 + 2 * math.sqrt(125))
    assert targets.combine(torch.tensor([[[1.0]], [[3.0]]])).tolist() == [[2.0]]
    assert restored("regression", targets.describe()).encode(np.array([25.0]), "").tolist() == [[0.0]]


def test_outputs_without_an_axis_of_their_own_are_compared_row_by_row() -> None:
    """As of a network that ends in `squeeze(-1)`; broadcast, each would be compared with every target."""
    targets, y = Number(10.0, 2.0), torch.tensor([[0.0], [1.0], [-2.0]])
    output = torch.tensor([0.5, 0.5, 1.0])
    by_hand = [(o - t) ** 2 for o, (t,) in zip(output.tolist(), y.tolist(), strict=True)]
    assert targets.loss(output, y).tolist() == by_hand
    for metric in targets.metrics(None)[:2]:
        assert metric.per_sample is not None
        assert metric.per_sample(output, y).tolist() == [4 * square for square in by_hand]
    with pytest.raises(UserError, match=r"the network's output has shape \(3, 2\), but its target \(3, 1\); give"):
        targets.loss(torch.zeros(3, 2), y)


def test_numbers_that_cannot_be() -> None:
    with pytest.raises(
        UserError, match=r"'y' holds text, such as '\?'; set data\.kind to classification, correct these"
    ):
        Number.fit(objects("1", "?", "b"), "y")
    with pytest.raises(UserError, match=r"'y' holds text; set data\.kind to classification"):
        Number.fit(objects("1", "2"), "y")
    with pytest.raises(UserError, match="'y' is 3 in every training row"):
        Number.fit(np.array([3.0, 3.0]), "y")
    with pytest.raises(UserError, match="'target' of the val split holds 'a' in row 0"):
        Number(0, 1).encode(objects("a"), "the val split")
    with pytest.raises(UserError, match=r"'y' is 0\.1 in every training row"):  # its deviation is rounding
        Number.fit(np.full(40, 0.1), "y")


def test_numbers_that_float32_cannot_tell_apart() -> None:
    with pytest.raises(UserError, match=r"'y' varies by .* in the training rows, too little for float32; choose"):
        Number.fit(np.arange(10) * 1e-320, "y")
    targets = Number.fit(np.array([0.0, 1e-6]), "y")
    assert targets.encode(np.array([1e30]), "the test split").tolist() == [[pytest.approx(2e36)]]
    with pytest.raises(UserError, match=r"data\.target: row 1 of the test split is too far from the training rows"):
        targets.encode(np.array([0.0, -1e35]), "the test split")


def test_classes_are_those_of_train_in_order() -> None:
    assert Classes.fit(objects("b", "a", "b"), "y").names == ["a", "b"]
    of_numbers = Classes.fit(np.array([10.0, 2.0, 10.0]), "y")
    assert of_numbers.names == ["2", "10"]
    assert of_numbers.encode(np.array([10.0, 2.0]), "test").tolist() == [1, 0]
    output = torch.tensor([[0.0, math.log(3)]])
    assert of_numbers.in_words(output) == {"class": "10", "probability": pytest.approx(0.75)}
    assert of_numbers.loss(output, torch.tensor([1])).item() == pytest.approx(-math.log(0.75), rel=1e-6)
    again = restored("classification", of_numbers.describe())
    assert isinstance(again, Classes)
    assert again.names == ["2", "10"]


def test_classes_that_cannot_be() -> None:
    with pytest.raises(UserError, match=r"'y' has one class in the training rows, 'a'; two are needed"):
        Classes.fit(objects("a", "a"), "y")
    with pytest.raises(UserError, match=r"the test split has the class 'c', which no training row has \(2 such"):
        Classes(["a", "b"]).encode(objects("a", "c", "d"), "the test split")
