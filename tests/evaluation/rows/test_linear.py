"""The regression's row: scikit-learn's own answers, and the runs that cannot have it."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn

from ocd_core.evaluation.rows.linear import Linear, LinearParams
from tests.support.arrays import ArraySplit, ArrayTask


class Classes(ArrayTask):
    def log_probabilities(self, output: Tensor) -> Tensor:
        return F.log_softmax(output, -1)


def blobs(count: int, classes: int, seed: int = 0) -> ArraySplit:
    generator = torch.Generator().manual_seed(seed)
    y = torch.arange(count) % classes
    return ArraySplit(torch.randn(count, 4, generator=generator) + F.one_hot(y, 4), y)


def context(split: ArraySplit, classes: int, has_classes: bool = True, c: float = 1.0) -> Any:
    """What the row reads of a run."""
    return SimpleNamespace(
        split=lambda _name: split,
        task=Classes(),
        has_classes=has_classes,
        device=torch.device("cpu"),
        predictor=SimpleNamespace(model=SimpleNamespace(network=nn.Linear(4, classes))),
        params=SimpleNamespace(controls=SimpleNamespace(of_row=lambda _name: LinearParams(C=c, max_iter=100))),
    )


def answers(row: Linear, x: Tensor) -> Tensor:
    found = row.outputs(SimpleNamespace(on_device=SimpleNamespace(inputs=(x,))))  # type: ignore[arg-type]
    assert isinstance(found, Tensor)
    return found


@pytest.mark.parametrize(("classes", "c"), [(2, 1.0), (3, 1.0), (3, 0.1)])
def test_it_answers_as_scikit_learn(classes: int, c: float) -> None:
    train, new = blobs(30, classes), blobs(8, classes, 1)
    run = context(train, classes, c=c)
    row = Linear("linear", run)
    assert row.left_out() is None
    assert set(row.fit(run).metrics) == {"iterations"}
    again = Linear("linear", run)
    again.load(SimpleNamespace(tensors=row.tensors()))  # type: ignore[arg-type]
    reference = LogisticRegression(C=c).fit(train.x.double().numpy(), train.y.numpy())
    expected = reference.predict_log_proba(new.x.double().numpy())
    np.testing.assert_allclose(answers(again, new.x), expected, rtol=1e-10, atol=1e-12)


def test_a_class_that_train_lacks_is_improbable_but_possible() -> None:
    train = blobs(30, 2)
    run = context(ArraySplit(train.x, 2 * train.y), 4)  # classes 0 and 2 of 4
    row = Linear("linear", run)
    row.fit(run)
    found = answers(row, train.x)
    reference = LogisticRegression().fit(train.x.double().numpy(), train.y.numpy())
    expected = reference.predict_proba(train.x.double().numpy())
    np.testing.assert_allclose(found.exp()[:, [0, 2]], expected, atol=1e-6)
    assert torch.isfinite(found).all()
    assert found[:, [1, 3]].exp().max() < 1e-6


@pytest.mark.parametrize(
    ("split", "has_classes", "why"),
    [
        (blobs(6, 2), False, "no probabilities"),
        (ArraySplit(torch.zeros(3, 1, 2, 2), torch.zeros(3).long()), True, "not a vector"),
        (ArraySplit(torch.zeros(3, 2).long(), torch.zeros(3).long()), True, "not a vector"),
        (ArraySplit(torch.zeros(3, 2), torch.zeros(3)), True, "not one class"),
        (ArraySplit(torch.zeros(3, 2), torch.zeros(3).long()), True, "one class alone"),
    ],
)
def test_runs_without_the_row(split: ArraySplit, has_classes: bool, why: str) -> None:
    reason = Linear("linear", context(split, 2, has_classes)).left_out()
    assert reason is not None
    assert why in reason


def test_a_network_with_several_outputs() -> None:
    run = context(blobs(6, 2), 2)
    run.predictor.model.network = lambda x: (x, x)
    assert Linear("linear", run).left_out() == "the base network has several outputs"
