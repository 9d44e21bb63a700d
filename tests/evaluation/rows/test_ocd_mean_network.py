"""One network moved by the mean of the drawn Δ."""

from ocd_core.artifacts import Artifacts
from ocd_core.predictor import Predictor
from tests.support.runs import assert_same_outputs, drawn_deltas, moved_by_hand, params_of, row_of


def test_its_weights_are_the_mean_of_the_drawn_ones(run: Artifacts) -> None:
    predictor = Predictor.from_run(run, params_of(run))
    for gain, note in ((None, ""), (0.3, ", with gain")):
        predictor.gain = gain
        row, shared = row_of(run, "ocd_mean_network", predictor)
        mean = sum(drawn_deltas(predictor, shared.batch, k) for k in range(3)) / 3
        expected = moved_by_hand(predictor, shared.batch, (gain or 1) * mean)
        assert_same_outputs(row.outputs(shared), expected)
        assert row.title == f"OCD, mean network of 3{note}"
