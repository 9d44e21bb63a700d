"""One draw, decoded and applied one sample at a time."""

from ocd_core.artifacts import Artifacts
from ocd_core.predictor import Predictor
from tests.support.runs import assert_same_outputs, drawn_deltas, moved_by_hand, params_of, row_of


def test_it_moves_the_layer_by_the_first_draw(run: Artifacts) -> None:
    row, shared = row_of(run, "ocd")
    deltas = drawn_deltas(shared.predictor, shared.batch, 0)
    assert_same_outputs(row.outputs(shared), moved_by_hand(shared.predictor, shared.batch, deltas))
    assert row.title == "OCD (one draw)"


def test_a_gain_multiplies_the_draw_and_is_in_the_title(run: Artifacts) -> None:
    predictor = Predictor.from_run(run, params_of(run))
    predictor.gain = 0.3
    row, shared = row_of(run, "ocd", predictor)
    deltas = 0.3 * drawn_deltas(predictor, shared.batch, 0)
    assert_same_outputs(row.outputs(shared), moved_by_hand(predictor, shared.batch, deltas))
    assert row.title == "OCD (one draw), with gain"
