"""Metrics of classes against plain loops, scikit-learn and values worked out by hand."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import brier_score_loss, matthews_corrcoef, roc_auc_score
from torch import Tensor

from ocd_core.tasks.classification import (
    CALIBRATION_BINS,
    auroc_of_being_wrong,
    brier,
    calibration_error,
    classification_metrics,
    hit,
    matthews,
    sureness,
)


def logits(count: int, classes: int, seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    output = 2 * torch.randn(count, classes, generator=generator, dtype=torch.float64)
    return output, torch.randint(classes, (count,), generator=generator)


def calibration_by_hand(output: Tensor, target: Tensor) -> float:
    p_NC = output.softmax(-1).numpy()
    confidence, right = p_NC.max(1), p_NC.argmax(1) == target.numpy()
    total = 0.0
    for b in range(CALIBRATION_BINS):
        inside = (confidence > b / CALIBRATION_BINS) & (confidence <= (b + 1) / CALIBRATION_BINS)
        if inside.any():
            total += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    return total


@given(st.integers(3, 60), st.integers(2, 6), st.integers(0, 1000))
def test_metrics_agree_with_plain_loops(count: int, classes: int, seed: int) -> None:
    output, target = logits(count, classes, seed)
    p_NC = output.softmax(-1)
    one_hot = np.eye(classes)[target]
    np.testing.assert_allclose(brier(output, target), ((p_NC.numpy() - one_hot) ** 2).sum(1), atol=1e-12)
    assert calibration_error(sureness(output, target)) == pytest.approx(calibration_by_hand(output, target), abs=1e-6)
    wrong = p_NC.argmax(1) != target
    assert hit(output, target).tolist() == [0.0 if w else 100.0 for w in wrong]
    if 0 < int(wrong.sum()) < count:
        expected = roc_auc_score(wrong, 1 - p_NC.max(1).values)
        assert auroc_of_being_wrong(sureness(output, target)) == pytest.approx(expected, abs=1e-6)


def test_brier_of_two_classes_is_twice_scikit_learns() -> None:
    output, target = logits(40, 2, 0)
    found = brier(output, target).mean()
    assert float(found) == pytest.approx(2 * brier_score_loss(target, output.softmax(-1)[:, 1]))


def test_values_by_hand() -> None:
    sure = torch.tensor([[0.0, -1e9], [0.0, -1e9]])
    assert brier(sure, torch.tensor([0, 1])).tolist() == [0.0, 2.0]
    assert calibration_error(sureness(sure, torch.tensor([0, 1]))) == pytest.approx(0.5)
    even = torch.zeros(4, 2)
    assert calibration_error(sureness(even, torch.tensor([0, 1, 0, 1]))) == pytest.approx(0)
    graded = torch.tensor([[4.0, 0.0], [3.0, 0.0], [1.0, 0.0], [2.0, 0.0]])
    assert auroc_of_being_wrong(sureness(graded, torch.tensor([0, 0, 1, 0]))) == 1.0
    assert auroc_of_being_wrong(sureness(graded, torch.tensor([1, 0, 0, 0]))) == 0.0


@pytest.mark.parametrize("target", [[0, 0], [1, 1]])
def test_there_is_no_curve_if_all_are_right_or_all_wrong(target: list[int]) -> None:
    with pytest.raises(ValueError, match="all right or all wrong"):
        auroc_of_being_wrong(sureness(torch.tensor([[1.0, 0.0], [2.0, 0.0]]), torch.tensor(target)))


def test_the_metrics_of_a_task_and_the_form_in_which_they_take_outputs() -> None:
    metrics = classification_metrics(torch.nn.CrossEntropyLoss(reduction="none"))
    assert [m.name for m in metrics] == ["cross_entropy", "accuracy", "brier", "ece", "auroc_wrong"]
    assert [m.higher_is_better for m in metrics] == [False, True, False, False, True]
    assert metrics[1].test == "mcnemar"
    output, target = logits(30, 4, 1)
    for m in metrics:  # log-probabilities are logits
        measure = m.per_sample or m.measure_split
        a, b = (torch.as_tensor(measure(o, target)) for o in (output, output.log_softmax(-1)))
        torch.testing.assert_close(a, b)


def test_matthews_correlation_by_hand() -> None:
    """Two classes: (TP · TN − FP · FN) / √((TP + FP)(TP + FN)(TN + FP)(TN + FN)), here (3·2 − 1·2)/√(4·5·3·4)."""
    predicted, target = [1, 1, 1, 1, 0, 0, 0, 0], [1, 1, 1, 0, 0, 0, 1, 1]
    output = torch.nn.functional.one_hot(torch.tensor(predicted), 2).double()
    metric = matthews()
    assert metric.measure_split(output, torch.tensor(target)) == pytest.approx(100 * 4 / 240**0.5)
    assert (metric.unit, metric.higher_is_better) == ("%", True)


@settings(max_examples=20)
@given(st.integers(3, 60), st.integers(2, 6), st.integers(0, 1000))
def test_matthews_correlation_is_scikit_learns(count: int, classes: int, seed: int) -> None:
    output, target = logits(count, classes, seed)
    predicted = output.argmax(1)
    if len(predicted.unique()) > 1 and len(target.unique()) > 1:
        found = matthews().measure_split(output, target)
        assert found == pytest.approx(100 * matthews_corrcoef(target, predicted), abs=1e-3)


@pytest.mark.parametrize(("predicted", "target"), [([0, 0, 0], [0, 1, 0]), ([0, 1, 0], [1, 1, 1])])
def test_matthews_correlation_needs_two_classes(predicted: list[int], target: list[int]) -> None:
    output = torch.nn.functional.one_hot(torch.tensor(predicted), 2).double()
    with pytest.raises(ValueError, match="one class alone"):
        matthews().measure_split(output, torch.tensor(target))
