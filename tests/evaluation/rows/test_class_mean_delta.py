"""The classes' mean Δ against numpy, and the runs that cannot have them."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch

from ocd_core.artifacts import Artifacts
from ocd_core.evaluation.context import Fitting
from ocd_core.evaluation.row import Saved
from ocd_core.evaluation.rows.class_mean_delta import ClassMeanDelta, means_by_class
from ocd_core.predictor import Predictor
from ocd_core.samples import only, whole_split
from tests.support.runs import assert_same_outputs, moved_by_hand, params_of, val_pass


def fitting_of(run: Artifacts) -> Fitting:
    params = params_of(run)
    return Fitting(run, params, Predictor.from_run(run, params))


@pytest.mark.usefixtures("plane_classes")
def test_every_sample_moves_by_the_mean_of_its_predicted_class(plane_run: Artifacts) -> None:
    fitting = fitting_of(plane_run)
    row = ClassMeanDelta("class_mean_delta", fitting)
    assert row.left_out() is None
    assert row.fit(fitting).metrics == {"classes": 2}
    loaded = ClassMeanDelta("class_mean_delta", fitting)
    loaded.load(Saved(dict(row.tensors()), row.config(), plane_run.controls, "class_mean_delta", None))
    train, network = fitting.split("train"), fitting.predictor.model.network
    predicted = network(*train.batch(whole_split(train)).inputs).argmax(1).numpy()
    deltas = fitting.store("train").deltas().astype(np.float64)
    means = np.stack([deltas[predicted == c].mean(0) for c in range(2)])
    shared = val_pass(fitting)
    chosen = network(*shared.batch.inputs).argmax(1)
    assert len(chosen.unique()) == 2
    expected = moved_by_hand(shared.predictor, shared.batch, torch.from_numpy(means)[chosen])
    assert_same_outputs(only(loaded.outputs(shared)), expected)


def test_a_class_without_rows_has_the_mean_of_all(plane_run: Artifacts) -> None:
    store = fitting_of(plane_run).store("train")
    class_N = 2 * (torch.arange(len(store)) % 2)  # 0 and 2
    found = means_by_class(store, class_N).numpy()
    deltas = store.deltas().astype(np.float64)
    expected = [deltas[::2].mean(0), deltas.mean(0), deltas[1::2].mean(0), deltas.mean(0)]
    np.testing.assert_allclose(found, np.stack(expected), rtol=1e-5, atol=1e-8)


@pytest.mark.usefixtures("plane_classes")
def test_a_class_that_training_never_predicts_has_the_mean_of_all(plane_run: Artifacts) -> None:
    fitting = fitting_of(plane_run)
    row = ClassMeanDelta("class_mean_delta", fitting)
    row.delta_COI = torch.arange(2.0)[:, None, None]  # class 0, and all
    outputs = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    move = row.move(SimpleNamespace(base=SimpleNamespace(output=outputs)))  # type: ignore[arg-type]
    assert move.flatten().tolist() == [0.0, 1.0]


def test_a_task_without_classes_cannot_have_it(plane_run: Artifacts) -> None:
    assert ClassMeanDelta("class_mean_delta", fitting_of(plane_run)).left_out() == "the task has no classes"
