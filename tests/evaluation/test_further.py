"""Several learning rates of a further training."""

import pytest

from ocd_core.artifacts import Artifacts
from ocd_core.errors import DivergedError
from ocd_core.evaluation import further
from tests.support.runs import fit_row, params_of


def test_the_best_rate_on_val_is_kept_and_all_are_paid(run: Artifacts) -> None:
    rates = [1e-4, 1e-2]
    each = {lr: fit_row(run, "base_further", epochs=2, lrs=[lr])[2] for lr in rates}
    both = fit_row(run, "base_further", epochs=2, lrs=rates)[2]
    best = min(rates, key=lambda lr: each[lr].metrics["val_loss"])
    assert both.metrics == each[best].metrics
    assert both.metrics["lr"] == best
    assert both.flops == {name: sum(fit.flops[name] for fit in each.values()) for name in ("allowed", "total")}
    assert [row["tried_lr"] for row in both.curve] == [lr for lr in rates for _ in each[lr].curve]


def test_a_budget_of_ocds_cost_is_divided_among_the_rates(run: Artifacts, monkeypatch) -> None:
    monkeypatch.setattr("ocd_core.evaluation.context.Fitting.tuned_flops", {"total": 10_000})
    monkeypatch.setattr("ocd_core.evaluation.context.base_epoch_flops", lambda *_: 1_000)
    assert fit_row(run, "base_further", epochs=None, lrs=[1e-4, 1e-3])[2].metrics["epochs"] == 5


def test_a_rate_that_diverges_is_only_bad_and_is_paid(run: Artifacts, monkeypatch) -> None:
    fine = fit_row(run, "base_further", epochs=2, lrs=[1e-3])[2]
    trained = further.fit_base

    def diverging(task, train, val, params, *args, **kwargs):
        if params.lr == 1e-2:
            raise DivergedError(f"nan, lower {kwargs['lr_name']}", 1)
        return trained(task, train, val, params, *args, **kwargs)

    monkeypatch.setattr(further, "fit_base", diverging)
    for rates in ([1e-2, 1e-3], [1e-3, 1e-2]):
        both = fit_row(run, "base_further", epochs=2, lrs=rates)[2]
        assert both.metrics == fine.metrics
        assert both.flops["total"] == fine.flops["total"] * 3 // 2  # two epochs of one, one of the other
        assert both.flops["allowed"] == 2 * fine.flops["allowed"]
    with pytest.raises(DivergedError, match=r"lower controls\.base_further\.lrs"):
        fit_row(run, "base_further", epochs=2, lrs=[1e-2])


def test_it_is_trained_as_a_shorter_base(run: Artifacts, monkeypatch) -> None:
    seen, trained = [], further.fit_base
    monkeypatch.setattr(further, "fit_base", lambda *args, **kw: (seen.append(args[3]), trained(*args, **kw))[1])
    fit_row(run, "base_further", epochs=2, patience=None, lrs=[1e-3])
    assert seen == [params_of(run).base.shortened(2, patience=2, lr=1e-3)]
