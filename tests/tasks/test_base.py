"""What a domain gets without a line of its own."""

from pathlib import Path

import pytest
import torch

from ocd_core.errors import UserError
from ocd_core.models.mlp import MLP
from ocd_core.samples import Batch
from ocd_core.strict import StrictModel
from ocd_core.tasks.base import Task
from ocd_core.weights import save_weights
from tests.support.arrays import ArraySplit, ArrayTask


class OfPairs(ArrayTask):
    """A model by its name in params."""

    def __init__(self) -> None:
        Task.__init__(self, StrictModel(), "mlp", {"in_features": 4, "out_features": 2, "hidden": [3]})


TASK = OfPairs()


@pytest.fixture
def batch() -> Batch:
    x, y = torch.arange(24.0).view(3, 2, 4), torch.tensor([2, 0, 1])
    return ArraySplit(x, y).batch(torch.tensor([2, 0]))


def test_the_model_is_that_of_the_params() -> None:
    model = TASK.build_model()
    assert isinstance(model, MLP)
    assert [layer.weight.shape for layer in model.layers] == [(3, 4), (2, 3)]


def test_what_must_be_there_is_named() -> None:
    with pytest.raises(TypeError, match=r"abstract method.* loss.* metrics.* open.* prepare"):
        Task(StrictModel(), "mlp", {})


def test_a_condition_is_the_networks_values_flattened(batch: Batch) -> None:
    layer_input, activation = torch.randn(2, 3, 5), torch.randn(2, 4)
    outputs = torch.randn(2, 2, 2), torch.randn(2)
    found = TASK.condition(batch, layer_input, activation, outputs)
    for row in range(2):
        assert found.layer_input[row].tolist() == layer_input[row].flatten().tolist()
        assert found.layer_activation[row].tolist() == activation[row].tolist()
        assert found.base_output[row].tolist() == [*outputs[0][row].flatten().tolist(), float(outputs[1][row])]


def test_training_batches_are_the_splits_own(batch: Batch) -> None:
    split, ids = ArraySplit(torch.randn(5, 4), torch.arange(5)), torch.tensor([3, 1])
    found, wanted = TASK.training_batch(split, ids, seed=1, epoch=2), split.batch(ids)
    assert torch.equal(found.inputs[0], wanted.inputs[0])
    assert torch.equal(found.target, wanted.target)


def test_the_base_is_trained_on_the_loss_and_nothing_is_smoothed() -> None:
    output, target = torch.randn(3, 2), torch.tensor([0, 1, 1])
    assert torch.equal(TASK.training_loss(output, target, 0.0), TASK.loss(output, target))
    with pytest.raises(UserError, match=r"base\.label_smoothing is 0\.1, but OfPairs has no labels to smooth; set"):
        TASK.training_loss(output, target, 0.1)


def test_stored_targets_are_targets_or_their_values_side_by_side(batch: Batch) -> None:
    assert TASK.stored_target(batch).tolist() == [1, 2]
    pair = Batch(batch.inputs, (torch.tensor([[1.0, 2.0], [3.0, 4.0]]), torch.tensor([5.0, 6.0])), batch.sample_id)
    assert TASK.stored_target(pair).tolist() == [[1, 2, 5], [3, 4, 6]]


def test_an_ensemble_is_the_mean_of_each_tensor() -> None:
    first, second = torch.randn(3, 4, 2), torch.randn(3, 4)
    for found, outputs in zip(TASK.combine((first, second)), (first, second), strict=True):
        torch.testing.assert_close(found, (outputs[0] + outputs[1] + outputs[2]) / 3)
    assert torch.equal(TASK.combine(first[:1]), first[0])


def test_neighbours_are_found_by_the_first_input(batch: Batch) -> None:
    two = Batch((batch.inputs[0], torch.full((2, 9), torch.nan)), batch.target, batch.sample_id)
    assert TASK.neighbour_features(two).tolist() == [[*range(16, 24)], [*range(8)]]
    numbers = Batch((torch.tensor([4, 7]),), batch.target, batch.sample_id)
    assert TASK.neighbour_features(numbers).tolist() == [[4], [7]]


def test_an_output_in_words_is_its_first_numbers() -> None:
    assert TASK.describe_output(torch.tensor([1.5, -2.0])) == {"y0": 1.5, "y1": -2.0}
    assert list(TASK.describe_output(torch.zeros(3, 5))) == [f"y{i}" for i in range(8)]
    assert TASK.describe_output((torch.tensor([[1.0], [2.0]]), torch.tensor(3.0))) == {"y0": 1, "y1": 2, "y2": 3}


def test_a_domain_reads_and_writes_no_files_and_has_no_classes_pictures_or_remarks() -> None:
    with pytest.raises(UserError, match="OfPairs cannot read single inputs from files"):
        TASK.read_input(Path("a.png"))
    assert TASK.write_output(torch.zeros(2), Path("nowhere"), "a") == []
    assert TASK.predicted_class(torch.zeros(2, 2)) is None
    assert TASK.log_probabilities(torch.zeros(2, 2)) is None
    assert (TASK.pictures, TASK.remarks()) == (None, [])


def test_published_weights_are_loaded_strictly(tmp_path: Path) -> None:
    model, other = TASK.build_model(), TASK.build_model()
    save_weights(model, tmp_path / "a.safetensors")
    TASK.load_checkpoint(other, tmp_path / "a.safetensors")
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), other.parameters(), strict=True))
    with pytest.raises(UserError, match="belongs to a different architecture than MLP"):
        TASK.load_checkpoint(MLP(4, 2, [5]), tmp_path / "a.safetensors")


def test_a_task_fits_by_gradient() -> None:
    class Fit:
        def by_gradient(self) -> str:
            return "by gradient"

    assert TASK.fit(Fit()) == "by gradient"
