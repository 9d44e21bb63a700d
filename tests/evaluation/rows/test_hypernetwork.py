"""The end-to-end hypernetwork as a row; its training is in tests/evaluation/test_hypernetworks.py."""

import torch

from ocd_core.artifacts import Artifacts
from ocd_core.evaluation.space import DeltaSpace
from tests.support.runs import assert_same_outputs, fit_row, moved_by_hand, row_of


def test_the_row_moves_the_layer_by_its_delta(run: Artifacts) -> None:
    row, shared = row_of(run, "hypernetwork")
    base = shared.base
    ones = torch.ones(len(shared)) if row.space.representation.uses_scale else None
    deltas = row.space.representation.decode(row.network(base.condition), ones, base.cut.layer_input_NI)
    assert_same_outputs(row.outputs(shared), moved_by_hand(shared.predictor, shared.batch, deltas))


def test_it_sees_no_delta_but_for_the_space(run: Artifacts, monkeypatch) -> None:
    """With the space fitted, other Δ of the same rms change nothing."""
    plain = fit_row(run, "hypernetwork", updates=3)[0].network.state_dict()
    encode = DeltaSpace.encode_store
    monkeypatch.setattr(DeltaSpace, "encode_store", lambda self, store: -encode(self, store))
    other = fit_row(run, "hypernetwork", updates=3)[0].network.state_dict()
    assert all(torch.equal(plain[name], value) for name, value in other.items())
