import math

import numpy as np
import pytest
import torch

from ocd_core.errors import UserError
from ocd_core.scale.losses import eq8_loss
from ocd_core.scale.training import train_scale
from tests.scale.common import data, split
from tests.support.params import scale_params as params


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
