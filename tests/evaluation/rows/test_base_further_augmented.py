"""Further training on augmented batches, for domains that have them."""

import copy

import torch

from ocd_core.artifacts import Artifacts
from ocd_core.evaluation.rows.base_further_augmented import AugmentedParams, BaseFurtherAugmented
from ocd_core.samples import Batch
from tests.support.runs import context_of, fit_row
from tests.support.toy import ToyTask


class Shifted(ToyTask):
    """Training batches are moved by a number of the epoch."""

    def training_batch(self, split, sample_id, seed, epoch):
        batch = split.batch(sample_id)
        return Batch((batch.inputs[0] + 0.1 * epoch,), batch.target, sample_id)


def augmented(self, kind):
    assert kind == "shift"
    found = copy.copy(self)
    object.__setattr__(found, "__class__", Shifted)
    return found


def test_it_trains_on_what_the_domain_augments(run: Artifacts, monkeypatch) -> None:
    monkeypatch.setattr(ToyTask, "augmented", augmented)
    values = {"epochs": 2, "lrs": [1e-2]}
    row, _, fit = fit_row(run, "base_further_augmented", augment="shift", **values)
    plain, _, without = fit_row(run, "base_further", **values)
    losses = [[r["train_loss"] for r in f.curve[1:]] for f in (fit, without)]
    assert losses[0] != losses[1]
    assert fit.curve[0]["val_loss"] == without.curve[0]["val_loss"]  # validation is not augmented
    assert fit.flops == without.flops
    assert not all(torch.equal(a, b) for a, b in zip(row.network.parameters(), plain.network.parameters(), strict=True))
    assert row.title == "base trained further, augmented (shift)"


def test_it_is_left_out_where_a_domain_has_no_augmentation(run: Artifacts) -> None:
    row = BaseFurtherAugmented("base_further_augmented", context_of(run))
    row.params = AugmentedParams(augment="shift", epochs=1, patience=None, lrs=[1e-3])
    assert row.left_out() == "the domain has no augmentation shift"
