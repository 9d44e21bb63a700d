"""Several learning rates of a further training."""

from ocd_core.artifacts import Artifacts
from tests.support.runs import fit_row


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
