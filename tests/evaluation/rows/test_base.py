"""The base network's row against the network itself."""

from ocd_core.artifacts import Artifacts
from tests.support.runs import assert_same_outputs, row_of


def test_it_is_the_base_network(run: Artifacts) -> None:
    row, shared = row_of(run, "base")
    network = shared.predictor.task.build_model().double()
    network.load_state_dict(shared.predictor.model.replay_network.state_dict())
    assert_same_outputs(row.outputs(shared), network(shared.batch.inputs[0].double()).detach())
    assert row.left_out() is None
