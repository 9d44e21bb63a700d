"""The table of ρ estimates against numpy, scipy and scikit-learn's plain ridge."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr
from sklearn.linear_model import Ridge

from ocd_core.artifacts import Artifacts, write_table
from ocd_core.codes.condition import ConditionEncoder
from ocd_core.errors import UserError
from ocd_core.report.run_scale import scale_markdown
from ocd_core.samples import Condition
from ocd_core.scale.comparison import compare_scales, linear_estimate
from ocd_core.scale.network import ScaleNetwork
from ocd_core.store import OverfitStore
from tests.support.stores import class_store, value_store


def network_of(store: OverfitStore) -> ScaleNetwork:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return ScaleNetwork(ConditionEncoder.from_condition(store.condition(), 8)).eval()


def test_every_entry_by_hand(tmp_path) -> None:
    train = class_store(tmp_path / "train.zarr", rows=40)
    rho = np.exp(np.random.default_rng(1).normal(-3, 2, 30))
    rho[4] = 0.0
    val = class_store(tmp_path / "val.zarr", rows=30, seed=3, rho=rho)
    network = network_of(train)
    found = compare_scales(network, "eq8", train, val, seed=0)
    entries = {(e["estimate"], e["rows"]): e for e in found}
    assert len(entries) == len(found) == 12

    right = val.read("base_output").argmax(1) == val.read("target")
    kept = rho > 0
    groups = {"all": kept, "base right": kept & right, "base wrong": kept & ~right}
    assert 0 < groups["base right"].sum() < kept.sum()
    with torch.no_grad():
        of_network = network(val.condition()).double().numpy()
    constant = np.sort(train.read("rho"))[19]  # torch's median of 40: the lower of the middle two
    linear = linear_estimate(train.condition(), torch.from_numpy(train.read("rho")), val.condition(), 0).numpy()
    estimates = {
        "scale network (eq8)": of_network,
        "linear model": linear,
        "median of training ρ": np.full(30, constant),
    }
    for name, estimate in estimates.items():
        for group, rows in groups.items():
            entry = entries[name, group]
            assert entry["n"] == rows.sum()
            ratio = np.abs(np.log(estimate[rows] / rho[rows]))
            assert entry["median_abs_log_ratio"] == pytest.approx(np.median(ratio), rel=1e-5)
            decibels = [
                10 * math.log10((a - b) ** 2 / b**2 + 1e-4) for a, b in zip(estimate[rows], rho[rows], strict=True)
            ]
            assert entry["eq8_db"] == pytest.approx(np.mean(decibels), rel=1e-4)
            if name == "median of training ρ":
                assert math.isnan(entry["rank_correlation"])
            else:
                assert entry["rank_correlation"] == pytest.approx(spearmanr(estimate[rows], rho[rows]).statistic)
    for group in groups:
        entry = entries["ρ̂ = 0", group]
        assert entry["eq8_db"] == pytest.approx(0, abs=1e-3)
        assert math.isnan(entry["median_abs_log_ratio"])
        assert math.isnan(entry["rank_correlation"])


def test_without_classes_there_is_one_group(tmp_path) -> None:
    train, val = (value_store(tmp_path / f"{name}.zarr") for name in ("train", "val"))
    found = compare_scales(network_of(train), "log_mse", train, val, seed=0)
    assert [(e["estimate"], e["rows"]) for e in found] == [
        ("scale network (log_mse)", "all"),
        ("linear model", "all"),
        ("median of training ρ", "all"),
        ("ρ̂ = 0", "all"),
    ]


def conditions(count: int, seed: int) -> Condition:
    g = torch.Generator().manual_seed(seed)
    layer_input = 5 + 3 * torch.randn(count, 4, generator=g)
    layer_input[:, 2] = 1.0  # a dead feature
    return Condition(layer_input, torch.randn(count, 3, generator=g), torch.randn(count, 2, generator=g))


def test_the_linear_model_has_the_penalty_of_the_best_leave_one_out_error() -> None:
    """Against refits without each of the rows in turn."""
    cond, new = conditions(25, 0), conditions(10, 1)
    noise = torch.randn(25, generator=torch.Generator().manual_seed(2))
    rho = (0.5 * cond.layer_input[:, 0] + cond.base_output[:, 1] + noise).exp()
    x, x_new = (np.concatenate([p.numpy().astype(float) for p in c.parts()], 1) for c in (cond, new))
    mean, spread = x.mean(0), np.where(x.std(0) > 0, x.std(0), 1)
    x, x_new, y = (x - mean) / spread, (x_new - mean) / spread, np.log(rho.numpy().astype(float))
    errors = {}
    for penalty in np.logspace(-2, 6, 17):
        left = [Ridge(penalty).fit(np.delete(x, i, 0), np.delete(y, i)).predict(x[i : i + 1])[0] for i in range(25)]
        errors[penalty] = np.square(left - y).sum()
    best = min(errors, key=errors.__getitem__)
    assert 1e-2 < best < 1e6
    expected = np.exp(Ridge(best).fit(x, y).predict(x_new))
    np.testing.assert_allclose(linear_estimate(cond, rho, new, 0), expected, rtol=1e-5)


def test_replicas_are_one_row_of_the_linear_model(tmp_path) -> None:
    """A second replica of each sample, with the same I(x), must not make leave-one-out see what it leaves out."""
    rho = np.exp(np.random.default_rng(4).normal(size=30))
    replica = np.arange(30) % 2
    twice = class_store(tmp_path / "twice.zarr", rho=rho, replica=replica, sample_id=np.arange(30) // 2)
    val = class_store(tmp_path / "val.zarr", seed=5)
    entries = compare_scales(network_of(twice), "eq8", twice, val, seed=0)
    once = torch.from_numpy(replica == 0)
    alone = linear_estimate(twice.condition().select(once), torch.from_numpy(rho)[once], val.condition(), 0)
    (entry,) = (e for e in entries if e["estimate"] == "linear model" and e["rows"] == "all")
    assert entry["rank_correlation"] == pytest.approx(spearmanr(alone, val.read("rho")).statistic)


def test_report_of_seeds_and_ranks(tmp_path) -> None:
    entry = {
        "estimate": "linear model",
        "rows": "all",
        "n": 5,
        "median_abs_log_ratio": 1.0,
        "rank_correlation": 0.5,
        "eq8_db": -2.0,
    }
    zero = {**entry, "estimate": "ρ̂ = 0", "median_abs_log_ratio": math.nan, "rank_correlation": math.nan, "eq8_db": 0.0}
    runs = [Artifacts("toy", seed, rank, tmp_path) for rank, seed in ((2, 0), (1, 0), (1, 1))]
    for run in runs[:2]:
        write_table(run.scale / "comparison.tsv", [entry, zero])
    with pytest.raises(UserError, match=r"stages\.train_scale"):
        scale_markdown(runs)
    write_table(runs[2].scale / "comparison.tsv", [{**entry, "n": 7, "eq8_db": -4.0}, zero])
    text = scale_markdown(runs)
    assert "| linear model | all | 5 to 7 | 1.00 ± 0.00 | 0.50 ± 0.00 | -3.00 ± 1.41 |" in text
    assert "| linear model | all | 5 | 1.00 | 0.50 | -2.00 |" in text
    assert "| ρ̂ = 0 | all | 5 | – | – | 0.00 |" in text
    assert text.index("rank 1, seeds 0, 1**") < text.index("rank 2, seed 0**")
