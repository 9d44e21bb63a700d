import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import entr
from scipy.stats import gaussian_kde

from ocd_core.scoring.entropy import entropy_gkde, silverman_factor


def scipy_entropy(row, bw_method="silverman"):
    """scipy's own density, on a fine grid that goes nine bandwidths beyond the data."""
    kde = gaussian_kde(row, bw_method)
    h = math.sqrt(kde.covariance[0, 0])
    grid = np.linspace(row.min() - 9 * h, row.max() + 9 * h, int((np.ptp(row) / h + 18) * 40) + 2)
    return float(entr(kde(grid)).sum() * (grid[1] - grid[0]))


def test_normal_draws_have_the_closed_form_entropy():
    sigma, draws = 0.37, 20_000
    rows = sigma * np.random.default_rng(0).standard_normal((8, draws)) + 5
    # the kernel widens the normal density: its variance is σ² + h²
    h = sigma * (4 / (3 * draws)) ** 0.2
    expected = 0.5 * math.log(2 * math.pi * math.e * (sigma**2 + h**2))
    assert entropy_gkde(rows) == pytest.approx(expected, abs=0.02)
    assert entropy_gkde(rows).mean() == pytest.approx(expected, abs=0.005)


def test_two_draws_are_a_mixture_of_two_gaussians():
    # far apart: log 2 more than one Gaussian; their bandwidth is sd·(3/2)^(-1/5), so they are never far apart
    h = math.sqrt(0.5) * 1.5**-0.2
    x = np.linspace(-9, 10, 200_001)
    f = (np.exp(-0.5 * (x / h) ** 2) + np.exp(-0.5 * ((x - 1) / h) ** 2)) / (2 * h * math.sqrt(2 * math.pi))
    assert entropy_gkde(np.array([[0.0, 1.0]]))[0] == pytest.approx(np.trapezoid(entr(f), x), abs=1e-5)


@settings(max_examples=60)
@given(
    st.lists(st.floats(-1e3, 1e3, allow_subnormal=False), min_size=2, max_size=60).filter(lambda v: np.ptp(v) > 1e-6)
)
def test_equals_scipy(values):
    row = np.array(values)
    assert entropy_gkde(row[None])[0] == pytest.approx(scipy_entropy(row), abs=1e-4)


@pytest.mark.parametrize("draws", [10, 300, 1500])
@pytest.mark.parametrize("spread", [0.0, 1.0, 4.0])
def test_equals_scipy_on_losses_of_many_decades(draws, spread):
    rng = np.random.default_rng(draws)
    rows = np.exp(spread * rng.standard_normal((3, draws)) - 12) + rng.exponential(size=(3, draws)) * (spread == 0)
    assert entropy_gkde(rows) == pytest.approx([scipy_entropy(r) for r in rows], abs=1e-4)


@settings(max_examples=40)
@given(st.integers(2, 200), st.floats(1e-9, 1e9), st.floats(-100, 100), st.integers(0, 2**32 - 1))
def test_affine_maps_and_permutations(draws, a, b, seed):
    rng = np.random.default_rng(seed)
    row = rng.standard_normal(draws)
    base = entropy_gkde(row[None])[0]
    assert entropy_gkde(a * (rng.permutation(row) + b)[None])[0] == pytest.approx(base + math.log(a), abs=1e-4)
    assert entropy_gkde(-row[None])[0] == pytest.approx(base, abs=1e-4)


def test_constant_rows_have_no_density_and_do_not_disturb_others():
    row = np.random.default_rng(0).standard_normal(50)
    rows = np.stack([np.zeros(50), row, np.full(50, 1e300), np.where(row > 0, 1.0, np.nextafter(1.0, 2.0)), 3 * row])
    result = entropy_gkde(rows)
    assert np.isnan(result).tolist() == [True, False, True, True, False]
    assert result[4] - result[1] == pytest.approx(math.log(3), abs=1e-6)


@pytest.mark.parametrize("scale", [1e-305, 1e-160, 1e160, 1e307])
def test_extreme_units_neither_underflow_nor_overflow(scale):
    row = np.random.default_rng(0).standard_normal(100)
    assert entropy_gkde(row[None] * scale)[0] == pytest.approx(entropy_gkde(row[None])[0] + math.log(scale), abs=1e-6)


def test_one_outlier_among_many_draws():
    row = np.random.default_rng(0).standard_normal(2000)
    row[7] = 1e6
    assert entropy_gkde(row[None])[0] == pytest.approx(scipy_entropy(row), abs=1e-4)


@pytest.mark.parametrize("bandwidth", [1e-3, 0.2, 5.0])
def test_a_fixed_bandwidth_equals_scipys(bandwidth):
    rng = np.random.default_rng(0)
    rows = np.stack([rng.standard_normal(300), rng.exponential(3.0, 300) + 40, 1e-3 * rng.standard_normal(300)])
    # scipy takes the bandwidth in units of the sample's standard deviation
    expected = [scipy_entropy(r, bandwidth / r.std(ddof=1)) for r in rows]
    assert entropy_gkde(rows, bandwidth) == pytest.approx(expected, abs=1e-4)


def test_a_fixed_bandwidth_gives_constant_rows_the_kernels_entropy_and_normal_ones_the_closed_form():
    rows = np.stack([np.full(20_000, 3.0), 5 + 0.7 * np.random.default_rng(0).standard_normal(20_000)])
    variance = np.array([0.0, 0.7**2]) + 0.2**2
    assert entropy_gkde(rows, 0.2) == pytest.approx(0.5 * np.log(2 * math.pi * math.e * variance), abs=0.01)


@pytest.mark.parametrize("bandwidth", [0.0, -1.0, math.nan])
def test_a_bandwidth_that_is_none(bandwidth):
    with pytest.raises(ValueError, match="bandwidth"):
        entropy_gkde(np.ones((1, 3)), bandwidth)


@pytest.mark.parametrize("bad", [np.zeros(5), np.zeros((3, 1)), np.array([[0.0, np.nan]]), np.array([[0.0, np.inf]])])
def test_bad_input(bad):
    with pytest.raises(ValueError):
        entropy_gkde(bad)


def test_silverman_factor_is_scipys():
    assert silverman_factor(57) == pytest.approx(gaussian_kde(np.arange(57.0), "silverman").factor, rel=1e-12)
