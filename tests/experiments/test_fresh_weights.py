"""Scores with fresh weights, against a plain loop and other libraries' densities."""

import math

import numpy as np
import pytest
import torch
from scipy.special import entr
from scipy.stats import gaussian_kde, ks_2samp
from sklearn.neighbors import KernelDensity
from torch import Tensor, nn

from experiments.fresh_weights import entropy_on_grid, fresh_scores, fresh_table
from ocd_core.network.layers import find_layers
from ocd_core.scoring.entropy import entropy_gkde
from tests.support.arrays import ArraySplit, ArrayTask

SAMPLES, DRAWS = 40, 300


class Small(nn.Module):
    """A convolution with several positions, a layer with one, and the output."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.hidden, self.out = nn.Conv2d(1, 3, 3), nn.Linear(27, 8), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(torch.relu(self.hidden(torch.relu(self.conv(x)).flatten(1))))


@pytest.fixture(scope="module")
def trained() -> tuple[nn.Module, ArraySplit]:
    torch.manual_seed(0)
    split = ArraySplit(2 * torch.randn(SAMPLES, 1, 5, 5), torch.randint(4, (SAMPLES,)))
    return Small(), split


def scipy_entropy(losses_N: np.ndarray) -> float:
    """The entropy of scipy's density with a bandwidth of .2, on a fine grid."""
    kde = gaussian_kde(losses_N, 0.2 / losses_N.std(ddof=1))
    grid = np.arange(losses_N.min() - 2, losses_N.max() + 2, 0.005)
    return float(entr(kde(grid)).sum() * 0.005)


def sklearn_sum(losses_N: np.ndarray) -> float:
    """The authors' sum over the points of their grid, by the library that they use."""
    log_f = KernelDensity(kernel="gaussian", bandwidth=0.2).fit(losses_N[:, None])
    log_f = log_f.score_samples(np.linspace(0, 100, 100)[:, None])
    return float(-(np.exp(log_f) * log_f).sum())


@torch.no_grad()
def losses_by_loop(network: nn.Module, layer: str, split: ArraySplit, draws: int) -> np.ndarray:
    """(D, N): set weights drawn by torch's own initialisation, run the network, draw after draw."""
    (weight,) = (module.weight for module in find_layers(network, layer))
    before = weight.clone()
    losses = []
    for _ in range(draws):
        nn.init.kaiming_normal_(weight)
        losses.append(ArrayTask().loss(network(split.x), split.y))
    weight.copy_(before)
    return torch.stack(losses).double().numpy()


@pytest.mark.parametrize("layer", ["conv", "hidden", "out"])
def test_scores_are_those_of_a_plain_loop(trained, layer, monkeypatch) -> None:
    network, split = trained
    seen = {}
    monkeypatch.setattr("experiments.fresh_weights.entropy_on_grid", lambda x: seen.setdefault(len(seen), x)[:, 0])
    scores = fresh_scores(network, ArrayTask(), split, SAMPLES, DRAWS)
    (score,) = [s for s in scores if s.name == layer]
    found = seen[["conv", "hidden", "out"].index(layer)]
    assert found.shape == (DRAWS, SAMPLES)
    entropies = np.array([scipy_entropy(row) for row in found])
    assert score.entropy == pytest.approx(entropies.max(), abs=1e-4)
    assert score.from_half == pytest.approx(entropies[: DRAWS // 2].max(), abs=1e-4)
    assert score.median == pytest.approx(np.median(entropies), abs=1e-4)
    plain = losses_by_loop(network, layer, split, DRAWS)
    assert ks_2samp(entropies, [scipy_entropy(row) for row in plain]).pvalue > 0.01
    wider = losses_by_loop(network, layer, ArraySplit(1.5 * split.x, split.y), DRAWS)
    assert ks_2samp(entropies, [scipy_entropy(row) for row in wider]).pvalue < 1e-3  # the test has power


def test_the_network_is_unchanged_and_the_highest_entropy_is_first(trained) -> None:
    network, split = trained
    before = {k: v.clone() for k, v in network.state_dict().items()}
    scores = fresh_scores(network, ArrayTask(), split, SAMPLES, 20)
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())
    assert [s.entropy for s in scores] == sorted((s.entropy for s in scores), reverse=True)
    assert {s.name: (s.kind, s.parameters) for s in scores} == {
        "conv": ("conv", 27),
        "hidden": ("linear", 216),
        "out": ("linear", 32),
    }
    assert len(fresh_table(scores).splitlines()) == 5


def test_the_sum_on_the_grid_is_the_authors() -> None:
    rng = np.random.default_rng(0)
    rows = np.stack([rng.exponential(0.1, 200), rng.exponential(5.0, 200), rng.normal(150, 30, 200)])
    assert entropy_on_grid(rows) == pytest.approx([sklearn_sum(row) for row in rows], rel=1e-9)


def test_the_sum_on_the_grid_is_the_entropy_only_of_wide_densities() -> None:
    normal = np.random.default_rng(0).standard_normal(20_000)
    wide, narrow = 50 + 5 * normal, 0.5 + 0.05 * normal
    exact = [0.5 * math.log(2 * math.pi * math.e * (sd**2 + 0.2**2)) for sd in (5, 0.05)]
    assert entropy_gkde(np.stack([wide, narrow]), 0.2) == pytest.approx(exact, abs=0.01)
    # its points are 100/99 apart, but it does not multiply by that
    assert entropy_on_grid(wide[None])[0] == pytest.approx(exact[0] * 99 / 100, abs=0.02)
    assert abs(entropy_on_grid(narrow[None])[0] - exact[1]) > 0.1
