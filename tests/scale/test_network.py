import math

import numpy as np
import pytest
import torch
from scipy.stats import spearmanr

from ocd_core.errors import UserError
from ocd_core.samples import Condition
from ocd_core.scale.network import ScaleNetwork, eq8_loss, log_mse_loss, scale_metrics, train_scale
from ocd_core.scale.params import ScaleParams


def params(warm=0, **changes):
    values = {
        "gain": "none", "loss": "eq8", "warm_start": {"updates": warm, "lr": 3e-3}, "width": 32, "updates": 300,
        "batch_size": 64, "lr": 3e-3, "validate_every": 50, "patience": 20,
    }  # fmt: skip
    return ScaleParams.model_validate({**values, **changes})


def data(count=300, seed=0):
    """ln ρ is a linear function of I(x) that spans six decades."""
    g = torch.Generator().manual_seed(seed)
    cond = Condition(*(torch.randn(count, d, generator=g) for d in (4, 3, 2)))
    return cond, (-6 + 2.5 * cond.base_output[:, 0] + 1.5 * cond.layer_input[:, 1]).exp()


def split(cond, rho, at=200):
    return cond.select(slice(at)), rho[:at], cond.select(slice(at, None)), rho[at:]


def test_losses_by_hand():
    predicted, rho = torch.tensor([2.0, 0.5, 1.0]), torch.tensor([1.0, 1.0, 1.0])
    expected = [10 * math.log10(1 + 1e-4), 10 * math.log10(0.25 + 1e-4), 10 * math.log10(1e-4)]
    assert eq8_loss(predicted, rho).tolist() == pytest.approx(expected, rel=1e-5, abs=1e-5)
    # ρ² below the line: what counts is the relative error
    torch.testing.assert_close(eq8_loss(predicted * 1e-5, rho * 1e-5), eq8_loss(predicted, rho), rtol=1e-3, atol=1e-3)
    assert log_mse_loss(predicted, rho).tolist() == pytest.approx([math.log(2) ** 2, math.log(2) ** 2, 0.0])


@pytest.mark.parametrize("loss", ["eq8", "log_mse"])
def test_it_learns_a_scale_over_decades(loss):
    found = train_scale(*split(*data()), params(loss=loss), seed=0)
    m = found.metrics
    assert m["val_rank_correlation"] > 0.97
    rho, val_rho = (part.log() for part in split(*data())[1::2])
    constant = float((val_rho - rho.median()).abs().median())
    assert m["val_median_abs_log_ratio"] < 0.3 * constant
    assert constant > 1.5


def test_a_warm_start_leads_where_eq8_alone_does_not():
    """Decades of spread and few updates: from the geometric mean Eq. 8 goes to ρ̂ near 0, where it is flat."""
    few = {"updates": 60, "lr": 1e-3, "validate_every": 20}
    cold = train_scale(*split(*data()), params(**few), seed=0).metrics
    warm = train_scale(*split(*data()), params(**few, warm=150), seed=0).metrics
    assert warm["updates"] == 210
    assert warm["val_loss"] < cold["val_loss"] - 3
    # the loss takes a ρ below the smallest of training as that, the measure takes it as it is
    assert warm["val_loss"] == pytest.approx(warm["val_eq8_db"], abs=0.1)


def test_the_start_is_kept_where_training_only_makes_it_worse():
    rows = []
    wild = params(warm=100, lr=0.1, updates=20, validate_every=10)
    found = train_scale(*split(*data()), wild, seed=0, on_row=rows.append)
    warm_alone = train_scale(*split(*data()), params(warm=100, lr=1e-12, updates=1, validate_every=1), seed=0)
    assert [row["update"] for row in found.curve] == [100, 110, 120]
    assert rows == found.curve
    assert found.metrics["best_update"] == 100
    assert found.metrics["val_loss"] == found.curve[0]["val_loss"] == warm_alone.curve[0]["val_loss"]
    cond = split(*data())[2]
    torch.testing.assert_close(found.network.estimate(cond), warm_alone.network.estimate(cond), rtol=1e-5, atol=0)


def test_progress_counts_the_warm_start_too():
    seen = []
    few = params(warm=4, updates=3, validate_every=2)
    train_scale(*split(*data()), few, seed=0, progress=lambda done, _text: seen.append(done))
    assert seen == list(range(1, 8))


def test_output_is_positive_and_a_function_of_the_condition():
    cond, rho = data(50)
    network = train_scale(cond, rho, cond, rho, params(updates=20), seed=0).network
    estimate = network.estimate(cond, batch=7)
    assert estimate.shape == (50,)
    assert (estimate > 0).all()
    torch.testing.assert_close(estimate, network(cond).detach())
    assert not network.training


def test_runs_repeat_bit_for_bit():
    cond, rho = data(50)
    first, second = (train_scale(cond, rho, cond, rho, params(updates=20), seed=3).network for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    other = train_scale(cond, rho, cond, rho, params(updates=20), seed=4).network
    assert not torch.equal(first.hidden.weight, other.hidden.weight)


def test_rho_of_zero_is_floored_at_the_smallest_positive_one():
    cond, rho = data(60)
    floored = rho.clone()
    smallest = int(rho.argmin())
    rho, floored = rho.clone(), rho.clone()
    rho[5], floored[5] = 0.0, float(rho[smallest])
    with_zero = train_scale(cond, rho, cond, rho, params(updates=20), seed=0)
    with_floor = train_scale(cond, floored, cond, floored, params(updates=20), seed=0)
    assert torch.equal(with_zero.network.last.weight, with_floor.network.last.weight)
    assert with_zero.metrics["training_zero_rho"] == 1
    assert all(math.isfinite(v) for v in with_zero.metrics.values())


def test_impossible_scales_are_refused():
    cond, rho = data(20)
    with pytest.raises(UserError, match="every training ρ is 0"):
        train_scale(cond, torch.zeros(20), cond, rho, params(), 0)
    with pytest.raises(UserError, match="no validation samples"):
        train_scale(cond, rho, cond.select(slice(0)), rho[:0], params(), 0)
    with pytest.raises(UserError, match="ρ of some training samples are not finite"):
        train_scale(cond, torch.where(rho == rho.max(), math.inf, rho), cond, rho, params(), 0)


def test_one_tiny_rho_among_others_does_not_end_the_training():
    """Where ρ̂ / ρ squared has no float32, Eq. 8 is 20 log10 of that ratio."""
    rho = torch.tensor([1e-24, 1e-30, 0.1])
    predicted = torch.tensor([0.5, 0.1, 0.1], requires_grad=True)
    loss = eq8_loss(predicted, rho)
    wide = 10 * torch.log10(((predicted.detach().double() - rho.double()) / rho.double()) ** 2 + 1e-4)
    torch.testing.assert_close(loss.detach().double(), wide, rtol=1e-5, atol=0)
    loss.sum().backward()
    gap = predicted.detach().double() - rho.double()
    np.testing.assert_allclose(predicted.grad[:2], (20 / math.log(10) / gap)[:2], rtol=1e-5)
    assert predicted.grad[2] == 0

    cond, rho = data()
    rho[7], rho[8] = 1e-24, 1e-44
    found = train_scale(*split(cond, rho), params(), 0)
    assert found.metrics["val_rank_correlation"] > 0.5


def test_metrics_against_numpy_and_scipy():
    rng = np.random.default_rng(0)
    rho = np.exp(rng.normal(size=40))
    rho[[3, 7]] = 0.0
    rho[11] = rho[12]  # ties
    predicted = np.exp(np.log(np.maximum(rho, 1e-3)) + rng.normal(size=40))
    found = scale_metrics(torch.from_numpy(predicted), torch.from_numpy(rho))
    kept = rho > 0
    assert found["median_abs_log_ratio"] == pytest.approx(np.median(np.abs(np.log(predicted[kept] / rho[kept]))))
    decibels = [10 * math.log10((p - r) ** 2 / r**2 + 1e-4) for p, r in zip(predicted[kept], rho[kept], strict=True)]
    assert found["eq8_db"] == pytest.approx(np.mean(decibels))
    assert found["rank_correlation"] == pytest.approx(spearmanr(predicted[kept], rho[kept]).statistic)


def test_metrics_of_constant_predictions_and_of_nothing():
    ones = torch.ones(4)
    assert math.isnan(scale_metrics(ones, torch.tensor([1.0, 2, 3, 4]))["rank_correlation"])
    assert all(math.isnan(v) for v in scale_metrics(ones, torch.zeros(4)).values())
    zero = scale_metrics(torch.zeros(4), ones)
    assert zero["eq8_db"] == pytest.approx(10 * math.log10(1 + 1e-4))
    assert math.isnan(zero["median_abs_log_ratio"])


def test_save_and_load(tmp_path):
    cond, rho = data(40)
    found = train_scale(cond, rho, cond, rho, params(updates=10), seed=0)
    found.network.save(tmp_path, params(updates=10))
    again = ScaleNetwork.load(tmp_path)
    assert torch.equal(again.estimate(cond), found.network.estimate(cond))
    (tmp_path / "model.safetensors").write_bytes(b"x")
    with pytest.raises(UserError, match="truncated or replaced"):
        ScaleNetwork.load(tmp_path)
