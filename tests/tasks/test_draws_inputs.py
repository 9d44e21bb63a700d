"""Steps of overfitting: samples as they are, or what a domain draws anew."""

import torch
from torch import Tensor

from ocd_core.samples import Batch
from ocd_core.tasks.draws_inputs import (
    draws_inputs,
    parts_of_step,
    scoring_batch,
    seen_while_overfitting,
    step_batch,
    update_batch,
)
from tests.support.arrays import ArraySplit, ArrayTask, Noisy

SPLIT = ArraySplit(torch.arange(10.0).view(5, 2), torch.tensor([4, 3, 2, 1, 0]))
IDS, REPLICA = torch.tensor([3, 0, 3]), torch.tensor([0, 1, 2])


class Halves(Noisy):
    """Shows the first feature in even steps and the second in odd ones, and says so; scores on the third step."""

    def overfit_batch(self, split, sample_id, replica, step, seed) -> Batch:
        batch = split.batch(sample_id)
        return Batch((batch.inputs[0][:, [step % 2]] + seed,), batch.target, sample_id)

    def parts(self, batch: Batch):
        half = Batch(batch.inputs, batch.target, batch.sample_id)
        return [(half, 0.25), (half, 0.75)]

    def seen_while_overfitting(self, split, sample_id, steps, seed) -> Tensor:
        return torch.arange(2).expand(len(sample_id), 2) < steps

    def scoring_batch(self, split, sample_id, seed) -> Batch:
        return self.overfit_batch(split, sample_id, torch.zeros_like(sample_id), 3, seed)

    def update_batch(self, split, sample_id, update, seed) -> Batch:
        return self.overfit_batch(split, sample_id, torch.zeros_like(sample_id), 0, seed + update)


def same(found: Batch, wanted: Batch) -> bool:
    first, second = ((*batch.inputs, batch.target, batch.sample_id) for batch in (found, wanted))
    return all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_samples_as_they_are() -> None:
    task, whole = ArrayTask(), SPLIT.batch(IDS)
    assert not draws_inputs(task)
    for step in (0, 3):
        assert same(step_batch(task, SPLIT, IDS, REPLICA, step, 7), whole)
        assert same(update_batch(task, SPLIT, IDS, step, 7), whole)
    assert same(scoring_batch(task, SPLIT, IDS, 7), whole)
    assert parts_of_step(task, whole) == [(whole, 1.0)]
    assert seen_while_overfitting(task, SPLIT, IDS, 4, 7) is None


def test_inputs_drawn_for_each_replica_and_step() -> None:
    task = Noisy()
    assert draws_inputs(task)
    found = step_batch(task, SPLIT, IDS, REPLICA, 5, 7)
    wanted = [[x + 0.1 * r + 0.05 for x in SPLIT.x[i].tolist()] for i, r in zip(IDS.tolist(), (0, 1, 2), strict=True)]
    torch.testing.assert_close(found.inputs[0], torch.tensor(wanted))
    assert found.target.tolist() == [1, 4, 1]


def test_without_more_a_domain_is_scored_on_its_first_step_and_sees_all_in_one_part() -> None:
    task = Noisy()
    first = step_batch(task, SPLIT, IDS, torch.zeros_like(IDS), 0, 7)
    assert same(scoring_batch(task, SPLIT, IDS, 7), first)
    assert same(update_batch(task, SPLIT, IDS, 4, 7), step_batch(task, SPLIT, IDS, torch.zeros_like(IDS), 4, 7))
    assert list(parts_of_step(task, first)) == [(first, 1.0)]
    assert seen_while_overfitting(task, SPLIT, IDS, 4, 7) is None


def test_a_domains_own_parts_scores_and_what_it_sees() -> None:
    task = Halves()
    batch = step_batch(task, SPLIT, IDS, REPLICA, 1, 100)
    assert batch.inputs[0].flatten().tolist() == [107, 101, 107]
    assert [share for _, share in parts_of_step(task, batch)] == [0.25, 0.75]
    assert scoring_batch(task, SPLIT, IDS, 0).inputs[0].flatten().tolist() == [7, 1, 7]
    assert update_batch(task, SPLIT, IDS, 50, 0).inputs[0].flatten().tolist() == [56, 50, 56]
    assert seen_while_overfitting(task, SPLIT, IDS, 1, 0).tolist() == [[True, False]] * 3
