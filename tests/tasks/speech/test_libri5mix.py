"""The paper's network and params: they build, and each kind of step runs once on short recordings."""

from pathlib import Path

import pytest
import torch
from torch import Tensor

from ocd_core.config import Params, load_params, parse_params
from ocd_core.network.cut import CutModel
from ocd_core.network.training import BaseFit
from ocd_core.overfit.rows import RowBuilder
from ocd_core.params_files import params_path, read_yaml
from ocd_core.tasks.base import Task
from tests.support.repository import REPO
from tests.tasks.speech.recordings import write_folder

SAMPLES = 2000


@pytest.fixture(scope="module")
def params(tmp_path_factory: pytest.TempPathFactory) -> Params:
    """libri5mix on made-up recordings of a quarter of a second, with one epoch."""
    parts = {"train-360": 2, "dev": 1, "test": 1}
    folder = write_folder(tmp_path_factory.mktemp("libri") / "min", parts, (SAMPLES,), sources=5)
    path = params_path("libri5mix", REPO)
    values = read_yaml(path)
    values["data"].update(path=str(folder), train_seconds=0.15)
    values["base"].update(epochs=1, lr_schedule="constant", lr_steps=[])
    return parse_params(values, str(path))


@pytest.fixture(scope="module")
def task(params: Params, tmp_path_factory: pytest.TempPathFactory) -> tuple[Task, Path]:
    prepared = tmp_path_factory.mktemp("prepared")
    params.build_task().prepare(prepared)
    return params.build_task(prepared), prepared


def test_sizes_are_those_of_the_papers() -> None:
    params = load_params("libri5mix", REPO)
    assert params.data.sample_rate == 8000
    assert params.data.train_seconds == 4.0
    network = params.base.model.args
    assert (network["kernel"], network["pairs"], network["features"], network["hidden"]) == (8, 6, 128, 128)
    assert network["chunk"] == int((2 * 4.0 * 8000 / (8 / 2)) ** 0.5)
    assert params.layer.select.endswith("cols_grnn.5.block_projection")


def test_a_step_of_the_base_and_the_overfitting_of_a_mixture(params: Params, task: tuple[Task, Path]) -> None:
    domain, prepared = task
    train, val = domain.open(prepared, "train"), domain.open(prepared, "val")
    fit = BaseFit(domain, train, val, params.base, seed=0, device=torch.device("cpu"))
    before = domain.build_model().state_dict()
    trained = fit.by_gradient()
    assert trained.curve[-1]["val_loss"] == pytest.approx(-trained.metrics["val_si_sdr"], abs=1e-4)
    assert {name: weight.shape for name, weight in trained.model.state_dict().items()} == {
        name: weight.shape for name, weight in before.items()
    }
    model = CutModel(trained.model, params.layer.select, params.overfit.precision)
    builder = RowBuilder(domain, model, val, params.overfit, 0)
    schema = builder.schema()
    arrays = builder.fill(slice(0, 1), builder.buffers(schema))
    assert model.traced
    assert arrays["delta"].shape == (1, 128, 256)
    assert arrays["layer_input"].shape == (1, 2 * 256)
    assert arrays["layer_activation"].shape == (1, 2 * 128)
    assert arrays["base_output"].shape == (1, 5 * 128)
    losses: Tensor = torch.from_numpy(arrays["loss_after"][0])
    assert float(losses[-1]) < float(arrays["loss_before"][0])
