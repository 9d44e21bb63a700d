"""What rows see of a run."""

import pytest
import torch

from ocd_core.artifacts import Artifacts
from ocd_core.codes.encode import condition_of_samples
from ocd_core.evaluation.context import Fitting, Unlabelled
from ocd_core.evaluation.costs import covariance_flops
from ocd_core.network.moves import base_pass
from ocd_core.predictor import Predictor
from ocd_core.samples import rows_at_once, whole_split
from ocd_core.store import OverfitStore
from tests.support.arrays import ArraySplit, Ragged
from tests.support.runs import context_of, params_of


def test_conditions_are_one_per_sample_in_the_splits_order(run: Artifacts) -> None:
    predictor = Predictor.from_run(run, params_of(run))
    train = predictor.task.open(run.prepared, "train")
    expected = base_pass(predictor.task, predictor.model, train.batch(whole_split(train))).condition
    found = condition_of_samples(OverfitStore(run.overfit("train")))
    for a, b in zip(found.parts(), expected.parts(), strict=True):
        torch.testing.assert_close(a, b)


def test_the_test_split_is_out_of_reach_for_all_but_bounds(run: Artifacts) -> None:
    context = context_of(run)
    assert len(context.split("test")) == context.store("test").rows_of_replica(0)
    others = context.without_test()
    assert others.split("train") is context.split("train")  # what was opened is shared
    for closed in (others, Fitting(run, context.params, context.predictor)):
        for open_it in (closed.split, closed.store):
            with pytest.raises(AssertionError, match=r"test .* is not for this row"):
                open_it("test")


def test_inputs_without_labels_are_open_to_all_that_are_evaluated(run: Artifacts) -> None:
    context = context_of(run)
    rows = torch.tensor([3, 0])
    labelled = context.split("test").batch(rows)
    for seen in (context, context.without_test(), context.without_test().without_test()):
        split = seen.unlabelled("test")
        batch = split.batch(rows)
        assert len(split) == len(context.split("test"))
        assert torch.equal(batch.inputs[0], labelled.inputs[0])
        assert torch.equal(batch.sample_id, rows)
        assert torch.equal(batch.target, torch.zeros_like(labelled.target))
    fitting = Fitting(run, context.params, context.predictor)
    assert len(fitting.unlabelled("val")) == len(fitting.split("val"))
    with pytest.raises(AssertionError, match="the test split is not for this row"):
        fitting.unlabelled("test")


def test_a_split_without_labels_still_says_that_samples_differ_in_shape() -> None:
    assert rows_at_once(Unlabelled(Ragged(torch.zeros(2, 2), torch.zeros(3, 2))), 7) == 1
    assert rows_at_once(Unlabelled(ArraySplit(torch.zeros(2, 2), torch.zeros(2))), 7) == 7


def test_what_rows_share_is_computed_once(run: Artifacts) -> None:
    context, calls = context_of(run), []
    for _ in range(2):
        for key in "ab":
            assert context.once(key, lambda key=key: calls.append(key) or key * 2) == key * 2
    assert context.without_test().once("a", lambda: "never") == "aa"
    assert calls == ["a", "b"]


def test_fitting_needs_a_predictor_without_gain(run: Artifacts) -> None:
    predictor = Predictor.from_run(run, params_of(run))
    predictor.gain = 0.5
    with pytest.raises(AssertionError):
        Fitting(run, params_of(run), predictor)


def test_the_cost_of_ocd_adds_up(run: Artifacts) -> None:
    cost = Fitting(run, params_of(run), Predictor.from_run(run, params_of(run))).ocd_flops
    assert cost["total"] == sum(v for k, v in cost.items() if k != "total")
    assert ("scale" in cost) == (params_of(run).layer.select == "head")  # pca has no use for ρ
    assert min(cost.values()) > 0
    assert "covariances" not in cost


def test_the_cost_of_ocd_includes_the_covariances_of_kfac(run: Artifacts) -> None:
    params = params_of(run)
    representation = params.diffusion.representation.model_copy(update={"metric": "kfac"})
    diffusion = params.diffusion.model_copy(update={"representation": representation})
    plain = Fitting(run, params, Predictor.from_run(run, params))
    kfac = Fitting(run, params.model_copy(update={"diffusion": diffusion}), plain.predictor)
    added = covariance_flops(plain.task, plain.tail, plain.split("train"), plain.seed)
    assert kfac.ocd_flops["covariances"] == added > 0
    assert kfac.ocd_flops["total"] == plain.ocd_flops["total"] + added
