"""The module `ocd_core.running.score_layers`."""

from ocd_core.artifacts import Artifacts, read_json


def test_a_named_layer_is_the_one_used(plane_run: Artifacts) -> None:
    assert read_json(plane_run.layers / "layers.json")["used"]["1"] == "layers.0"
