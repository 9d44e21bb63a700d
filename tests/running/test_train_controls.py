"""The module `ocd_core.running.train_controls`."""

from ocd_core.artifacts import Artifacts, read_json


def test_every_control_of_the_params_is_fitted(plane_run: Artifacts) -> None:
    assert {"mean_delta", "ridge", "ocd_gain"} <= set(read_json(plane_run.controls / "metrics.json"))
