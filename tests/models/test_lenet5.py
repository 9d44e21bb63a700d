from pathlib import Path

import pytest
import torch

from ocd_core.models.lenet5 import LeNet5
from ocd_core.network.measuring import evaluate_model
from ocd_core.network.training import load_base
from ocd_core.tasks.base import Task
from tests.support.params import base_params


def test_shapes_and_names_of_the_released_network() -> None:
    model = LeNet5()
    assert {k: tuple(v.shape) for k, v in model.state_dict().items()} == {
        "conv1.weight": (6, 1, 5, 5), "conv1.bias": (6,), "conv2.weight": (16, 6, 5, 5), "conv2.bias": (16,),
        "conv3.weight": (120, 16, 5, 5), "conv3.bias": (120,), "fc1.weight": (84, 120), "fc1.bias": (84,),
        "fc2.weight": (10, 84), "fc2.bias": (10,),
    }  # fmt: skip
    assert model(torch.zeros(3, 1, 28, 28)).shape == (3, 10)
    assert LeNet5(classes=4)(torch.zeros(2, 1, 28, 28)).shape == (2, 4)


def test_the_released_checkpoint_on_the_official_test_set(
    mnist_task: Task, mnist_prepared: Path, shared_data: Path
) -> None:
    """Its known values: 98.75 % and cross entropy .0406."""
    path = str(shared_data / "released" / "checkpoint_lenet5.pth")
    params = base_params("lenet5", {}, checkpoint=path, epochs=1, patience=1, batch_size=1, lr=1.0)
    found = evaluate_model(mnist_task, load_base(mnist_task, params, seed=0), mnist_task.open(mnist_prepared, "test"))
    assert found["accuracy"] == pytest.approx(98.75, abs=1e-9)
    assert found["cross_entropy"] == pytest.approx(0.0406, abs=5e-5)
    assert found["n"] == 10_000
