"""The bound: Δ of the test samples' own labels, and what overfitting saw of a sample."""

import pytest
import torch

from ocd_core.artifacts import Artifacts
from ocd_core.errors import UserError
from ocd_core.evaluation.rows import bound
from ocd_core.store import OverfitStore
from tests.support.runs import assert_same_outputs, evaluated, moved_by_hand, params_of, row_of
from tests.support.toy import SIZES, ToyTask


def test_each_sample_moves_by_its_own_delta(run: Artifacts) -> None:
    row, shared = row_of(run, "bound")
    deltas = torch.from_numpy(OverfitStore(run.overfit("test")).deltas_of_samples(shared.batch.sample_id.numpy()))
    assert_same_outputs(row.outputs(shared), moved_by_hand(shared.predictor, shared.batch, deltas))
    assert row.details() is None


def test_apart_for_what_its_overfitting_saw(run: Artifacts, monkeypatch) -> None:
    """The first number of every even sample is taken as seen, both of every odd one."""

    def seen(task, split, sample_id, steps, seed):
        assert isinstance(task, ToyTask)
        assert (steps, seed) == (params_of(run).overfit.steps, run.seed)
        return torch.stack([torch.ones(len(sample_id), dtype=torch.bool), sample_id % 2 == 1], 1)

    monkeypatch.setattr(bound, "seen_while_overfitting", seen)
    found = evaluated(run).details["bound"]
    row, shared = row_of(run, "bound")
    batch = row.context.split("test").batch(shared.batch.sample_id)
    error = (row.outputs(shared) - batch.target) ** 2
    odd = batch.sample_id % 2 == 1
    on_seen = torch.where(odd, error.mean(1), error[:, 0]).mean() ** 0.5
    assert found["metric"] == "rmse"
    assert found["share_seen"] == 0.75
    assert found["seen"] == pytest.approx(float(on_seen), rel=1e-5)
    assert found["unseen"] == pytest.approx(float(error[~odd, 1].mean() ** 0.5), rel=1e-5)
    monkeypatch.setattr(bound, "seen_while_overfitting", lambda *_: torch.ones(1, 2, dtype=torch.bool))
    assert evaluated(run, rows=["base", "bound"]).details["bound"]["unseen"] is None


def test_the_store_of_another_split_is_refused(run: Artifacts, monkeypatch) -> None:
    row, shared = row_of(run, "bound")
    monkeypatch.setattr(type(row.context.split("test")), "__len__", lambda _self: SIZES["test"] - 1)
    with pytest.raises(UserError, match="the overfit store has 20 samples, the split 19; run 'dvc repro'"):
        row.outputs(shared)
