"""The task's loss under θ + Δ: what is drawn, and how processes share the validation split.

Values and gradients are compared with loops over samples in tests/diffusion/test_tuning.py.
"""

import pytest
import torch

from ocd_core.network.cut import CutModel
from ocd_core.network.moved_loss import MovedLoss
from ocd_core.network.moves import base_pass
from ocd_core.rng import torch_generator
from ocd_core.samples import Samples, whole_split
from ocd_core.training.processes import Processes
from tests.support.arrays import MODEL, ArrayTask, Noisy, Rows


class Spy:
    """Moves nothing and notes what it is asked for."""

    def __init__(self) -> None:
        self.asked = []

    def __call__(self, cond, layer_input_NI, counter, update):
        self.asked.append((len(cond), counter.tolist(), update))
        return [torch.zeros(len(cond), MODEL.weight_OI.shape[0])]


def moved(processes=None, task=None):
    split, task, spy = Rows(13), task or Noisy(), Spy()
    part = Samples(split, base_pass(task, MODEL, split.batch(whole_split(split))).condition)
    return MovedLoss(task, MODEL, spy, part, part, 6, 3, "toy", processes or Processes()), spy, split, task


def test_training_draws_samples_and_their_inputs_by_update():
    loss, spy, split, task = moved()
    found = float(loss.loss(4, 1, 2))
    ids = torch.randint(13, (6,), generator=torch_generator(3, "toy update", 4))[3:]
    batch = task.overfit_batch(split, ids, torch.zeros(3), 4, 3)
    expected = task.loss(MODEL.network(batch.inputs[0]), batch.target).sum() / 6
    assert found == pytest.approx(float(expected), rel=1e-5)
    assert spy.asked == [(3, [3, 4, 5], 4)]


def test_a_domain_may_give_updates_less_than_steps_of_overfitting_see():
    class Shifted(Noisy):
        def update_batch(self, split, sample_id, update, seed):
            return self.overfit_batch(split, sample_id, torch.zeros_like(sample_id), 100 + update, seed)

    loss, _, split, task = moved(task=Shifted())
    ids = torch.randint(13, (6,), generator=torch_generator(3, "toy update", 4))
    batch = task.overfit_batch(split, ids, torch.zeros(6), 104, 3)
    expected = task.loss(MODEL.network(batch.inputs[0]), batch.target).mean()
    assert float(loss.loss(4, 0, 1)) == pytest.approx(float(expected), rel=1e-5)
    assert loss.validate() == moved()[0].validate()


def test_validation_is_the_mean_over_the_split_on_the_inputs_of_the_first_step():
    loss, spy, split, task = moved()
    batch = task.overfit_batch(split, torch.arange(13), torch.zeros(13), 0, 3)
    expected = task.loss(MODEL.network(batch.inputs[0]), batch.target).mean()
    assert loss.validate()["val_loss"] == pytest.approx(float(expected), rel=1e-5)
    assert spy.asked == [(13, list(range(13)), None)]


def test_processes_divide_the_validation_split(monkeypatch):
    totals = []
    for rank in range(2):
        processes = Processes(rank, 2)
        loss, spy, _, _ = moved(processes)
        loss.rows = 4
        monkeypatch.setattr(Processes, "add_up", lambda self, tensors: totals.append(float(tensors[0])))
        loss.validate()
        assert [ids for _, ids, _ in spy.asked] == (
            [[0, 1, 2, 3], [8, 9, 10, 11]] if rank == 0 else [[4, 5, 6, 7], [12]]
        )
    monkeypatch.undo()
    whole, *_ = moved()
    assert sum(totals) / 13 == pytest.approx(whole.validate()["val_loss"], rel=1e-6)


def test_the_prefix_does_not_run_again_for_inputs_that_stay(monkeypatch):
    """What the tail needs of a sample is in I(x)."""
    loss, _, split, task = moved(task=ArrayTask())
    monkeypatch.setattr(CutModel, "prefix", lambda *_: pytest.fail("the prefix ran"))
    batch = split.batch(whole_split(split))
    expected = task.loss(MODEL.network(batch.inputs[0]), batch.target)
    assert loss.validate()["val_loss"] == pytest.approx(float(expected.mean()), rel=1e-5)
    ids = torch.randint(13, (6,), generator=torch_generator(3, "toy update", 4))
    assert float(loss.loss(4, 0, 1)) == pytest.approx(float(expected[ids].mean()), rel=1e-5)
