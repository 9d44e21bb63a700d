"""The module `ocd_core.running.train_scale`."""

from ocd_core.artifacts import Artifacts, read_table
from ocd_core.scale.network import ScaleNetwork


def test_the_network_is_compared_with_constants(plane_run: Artifacts) -> None:
    assert ScaleNetwork.load(plane_run.scale) is not None
    assert len(read_table(plane_run.scale / "comparison.tsv")) > 1
