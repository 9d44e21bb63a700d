"""The deep ensemble: its members, their budget and their combined outputs."""

import pytest
import torch

from ocd_core.artifacts import Artifacts
from ocd_core.evaluation.context import Fitting
from ocd_core.evaluation.row import Saved
from ocd_core.evaluation.rows.deep_ensemble import DeepEnsemble, DeepEnsembleParams
from ocd_core.evaluation.shared_pass import SharedPass
from ocd_core.network.training import fit_base
from ocd_core.predictor import Predictor
from ocd_core.rng import derive_seed
from ocd_core.samples import whole_split
from tests.support.runs import fit_row, params_of, val_pass


def fitted(run: Artifacts, epochs: int | None, monkeypatch: pytest.MonkeyPatch) -> tuple[DeepEnsemble, Fitting]:
    fitting = Fitting(run, params_of(run), Predictor.from_run(run, params_of(run)))
    monkeypatch.setitem(vars(fitting), "tuned_flops", {"total": 10_000})
    monkeypatch.setattr("ocd_core.evaluation.context.base_epoch_flops", lambda *_: 1_000)
    row = DeepEnsemble("deep_ensemble", fitting)
    row.params = DeepEnsembleParams(members=[3], epochs=epochs)
    return row, fitting


def test_members_are_the_base_and_networks_trained_like_it(run: Artifacts, monkeypatch: pytest.MonkeyPatch) -> None:
    row, fitting = fitted(run, 2, monkeypatch)
    fit = row.fit(fitting)
    assert len(row.others) == 2
    short = fitting.params.base.model_copy(update={"epochs": 2})
    for i, other in enumerate(row.others):
        seed = derive_seed(fitting.seed, "deep ensemble", i)
        alone = fit_base(fitting.task, fitting.split("train"), fitting.split("val"), short, seed)
        for name, value in alone.model.state_dict().items():
            assert torch.equal(other.state_dict()[name], value)
    assert fit.flops == {"allowed": 4_000, "total": 4_000}
    assert row.title == "deep ensemble of 3"


def test_the_budget_is_what_ocd_costs(run: Artifacts, monkeypatch: pytest.MonkeyPatch) -> None:
    row, fitting = fitted(run, None, monkeypatch)
    fit = row.fit(fitting)
    assert fit.flops is not None
    assert fit.flops["allowed"] == 10_000  # five epochs for each of two
    assert {metrics["epochs"] for metrics in fit.metrics.values()} == {5}
    monkeypatch.setitem(vars(fitting), "tuned_flops", {"total": 10**9})
    fit = row.fit(fitting)
    assert max(metrics["epochs"] for metrics in fit.metrics.values()) <= fitting.params.base.epochs


def test_outputs_are_the_members_combined_and_survive_a_file(run: Artifacts, monkeypatch: pytest.MonkeyPatch) -> None:
    row, fitting = fitted(run, 1, monkeypatch)
    row.fit(fitting)
    split = fitting.split("val")
    shared = SharedPass(fitting.predictor, split.batch(whole_split(split)), "val")
    x = shared.batch.inputs[0].double()
    loaded = DeepEnsemble("deep_ensemble", fitting)
    loaded.params = row.params
    loaded.load(Saved(dict(row.tensors()), {}, run.controls, "deep_ensemble", None))
    outputs = torch.stack([shared.base.output, *(net.double()(x) for net in row.others)])
    torch.testing.assert_close(loaded.distribution(shared), outputs)
    torch.testing.assert_close(loaded.outputs(shared), outputs.mean(0))


def test_ensembles_of_several_sizes_share_their_members(run: Artifacts) -> None:
    small, fitting, fit = fit_row(run, "deep_ensemble", "2", members=[3, 2], epochs=1)
    assert DeepEnsemble.variants(fitting.params) == ("3", "2")
    large = DeepEnsemble("deep_ensemble", fitting, "3")
    large.load(Saved({}, {}, run.controls, "deep_ensemble", None))  # nothing is loaded again
    shared = val_pass(fitting)
    assert (small.title, large.title) == ("deep ensemble of 2", "deep ensemble of 3")
    assert (len(small.distribution(shared)), len(large.distribution(shared))) == (2, 3)
    assert torch.equal(small.distribution(shared), large.distribution(shared)[:2])
    assert fit.flops is not None
    costs = fit.flops_of_variants
    assert costs["3"] == fit.flops == {name: 2 * count for name, count in costs["2"].items()}
