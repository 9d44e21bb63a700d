import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ocd_core.diffusion.schedules import make_schedule, min_snr_weight, split_prediction, training_target
from ocd_core.errors import UserError


def test_paper_schedule_by_hand():
    s = make_schedule("paper", 10)
    expected = [(1e-4 * (10 - t) + 1e-2 * (t - 1)) / 9 for t in range(1, 11)]
    np.testing.assert_allclose(s.betas[1:], expected, rtol=1e-12)
    assert s.betas[0] == 0
    assert s.alphas_bar[0] == 1
    assert s.timesteps == 10
    for t in range(1, 11):
        assert float(s.alphas_bar[t]) == pytest.approx(math.prod(1 - b for b in expected[:t]), rel=1e-12)
    assert float(s.alphas_bar[10]) == pytest.approx(0.951, abs=5e-4)


def test_released_schedule_ends_where_the_code_does():
    s = make_schedule("released", 1000)
    np.testing.assert_allclose(s.betas[1:], np.linspace(1e-6, 1e-2, 1000), rtol=1e-10)
    assert float(s.alphas_bar[1000]) == pytest.approx(0.0066, abs=5e-5)


@pytest.mark.parametrize("timesteps", [2, 10, 100, 1000])
def test_zero_snr_ends_at_nothing_and_falls_all_the_way(timesteps):
    s = make_schedule("zero_snr", timesteps)
    assert s.alphas_bar[-1] == 0
    assert s.snr[-1] == 0
    assert (s.alphas_bar.diff() < 0).all()
    assert ((s.betas[1:] > 0) & (s.betas[1:] <= 1)).all()
    middle = math.cos((0.5 + 0.008) / 1.008 * math.pi / 2) ** 2 / math.cos(0.008 / 1.008 * math.pi / 2) ** 2
    assert float(s.alphas_bar[timesteps // 2]) == pytest.approx(middle, rel=1e-9)


def test_bad_schedules_are_refused():
    with pytest.raises(UserError, match="unknown schedule 'cubic'; known are paper"):
        make_schedule("cubic", 10)
    with pytest.raises(UserError, match="at least 2 timesteps"):
        make_schedule("paper", 1)


@settings(max_examples=30)
@given(st.sampled_from(["epsilon", "x0", "v"]), st.floats(0.01, 0.99), st.integers(0, 1000))
def test_every_prediction_type_gives_back_signal_and_noise(kind, alpha_bar, seed):
    g = torch.Generator().manual_seed(seed)
    x0, epsilon = torch.randn(2, 6, generator=g, dtype=torch.float64)
    a, s = math.sqrt(alpha_bar), math.sqrt(1 - alpha_bar)
    target = training_target(kind, x0, epsilon, torch.tensor(a), torch.tensor(s))
    got = split_prediction(kind, target, a * x0 + s * epsilon, a, s)
    torch.testing.assert_close(got[0], x0, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(got[1], epsilon, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("kind", ["x0", "v"])
def test_x0_and_v_work_without_any_signal(kind):
    x0, epsilon = torch.randn(2, 6, generator=torch.Generator().manual_seed(0))
    target = training_target(kind, x0, epsilon, torch.tensor(0.0), torch.tensor(1.0))
    got = split_prediction(kind, target, epsilon, 0.0, 1.0)
    torch.testing.assert_close(got[0], x0)
    torch.testing.assert_close(got[1], epsilon)


def test_min_snr_weights_agree_over_the_prediction_types():
    """They weigh one and the same error of Ω_0: an error of ε is sqrt(SNR) times as large, one of v sqrt(SNR + 1)."""
    snr = torch.tensor([0.1, 1.0, 5.0, 40.0], dtype=torch.float64)
    x0 = min_snr_weight("x0", snr)
    assert x0.tolist() == pytest.approx([0.1, 1.0, 5.0, 5.0])
    torch.testing.assert_close(min_snr_weight("epsilon", snr) * snr, x0)
    torch.testing.assert_close(min_snr_weight("v", snr) * (snr + 1), x0)
