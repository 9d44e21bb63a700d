"""The module `ocd_core.running.train_diffusion`."""

from ocd_core.artifacts import Artifacts, read_json
from ocd_core.diffusion.model import DiffusionModel


def test_the_model_draws_matrices_like_those_in_the_store(plane_run: Artifacts) -> None:
    assert tuple(DiffusionModel.load(plane_run.diffusion).shape) == (6, 2)
    assert read_json(plane_run.diffusion / "params.json")["diffusion"]["updates"] == 4
