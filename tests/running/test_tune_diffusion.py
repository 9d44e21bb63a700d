"""The module `ocd_core.running.tune_diffusion`."""

from ocd_core.artifacts import Artifacts


def test_without_updates_the_model_is_the_same(plane_run: Artifacts) -> None:
    name = "model.safetensors"
    assert (plane_run.tuned / name).read_bytes() == (plane_run.diffusion / name).read_bytes()
