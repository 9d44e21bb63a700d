import numpy as np
import pytest
import torch
from scipy.stats import ks_2samp
from torch import Tensor, nn

import ocd_core.scoring.perturb  # MOVED ocd_core.perturb
from ocd_core.network.cut import CutModel
from ocd_core.scoring.entropy import entropy_gkde
from ocd_core.scoring.perturb import is_shared, layer_scale, perturbed_losses
from tests.support.arrays import ArraySplit, ArrayTask, losses_by_loop

DRAWS = 1500


class Mixed(nn.Module):
    """A layer on several positions, which the rest of the network mixes: its loss shows their covariance."""

    def __init__(self, layer: nn.Module, mixed: int, outputs: int = 3) -> None:
        super().__init__()
        self.before, self.layer, self.head = nn.Identity(), layer, nn.Linear(mixed, outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(torch.tanh(self.layer(self.before(x))).flatten(1))


class Untraceable(Mixed):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) if float(x.sum()) < 1e9 else x


# name: (layer, input shape, numbers after the layer, regime)
CASES = {
    "vector": (lambda: nn.Linear(7, 5), (7,), 5, "reparametrised"),
    "one patch": (lambda: nn.Conv2d(2, 6, 4), (2, 4, 4), 6, "reparametrised"),
    "few positions": (lambda: nn.Linear(260, 4), (3, 260), 12, "reparametrised"),
    "few patches": (lambda: nn.Conv2d(16, 4, (4, 4)), (16, 5, 4), 8, "reparametrised"),
    "tokens": (lambda: nn.Linear(6, 4), (5, 6), 20, "shared"),
    "image": (lambda: nn.Conv2d(2, 3, 3, stride=2, padding=1), (2, 6, 5), 27, "shared"),
    "sound": (lambda: nn.Conv1d(2, 3, 3, dilation=2, bias=False), (2, 9), 15, "shared"),
}


def case(name: str, model=Mixed):
    layer, shape, mixed, regime = CASES[name]
    torch.manual_seed(5)
    network = model(layer(), mixed)
    return network, ArraySplit(torch.randn(4, *shape), torch.tensor([0, 2, 1, 1])), regime


def losses(network, split, samples=(0, 1, 2, 3), scale=0.1, draws=DRAWS, seed=0, **more):
    return perturbed_losses(
        CutModel(network, "layer"), ArrayTask(), split.batch(torch.tensor(samples)), scale, draws, seed, **more
    )


@pytest.mark.parametrize("name", CASES)
def test_same_distribution_as_setting_weights(name):
    network, split, regime = case(name)
    positions, in_features = CutModel(network, "layer").prefix((split.x[:1],)).x_NPI.shape[1:]
    assert is_shared(positions, in_features) == (regime == "shared")
    scale = 0.4 / in_features**0.5
    got = losses(network, split, [1], scale)[0]
    plain, other = (
        losses_by_loop(network, "layer", split.x[1], split.y[1], s, DRAWS, seed=1) for s in (scale, 1.5 * scale)
    )
    assert ks_2samp(got, plain).pvalue > 0.01
    assert ks_2samp(got, other).pvalue < 1e-3  # the test has power
    assert entropy_gkde(got[None]) == pytest.approx(entropy_gkde(plain[None]), abs=0.15)


@pytest.mark.parametrize("name", CASES)
def test_the_memory_bound_and_the_other_samples_change_nothing(name, monkeypatch):
    network, split, _ = case(name)
    everything = losses(network, split, draws=50)
    assert everything.dtype == torch.float64
    assert everything.shape == (4, 50)
    some = losses(network, split, [3, 1], draws=50)
    torch.testing.assert_close(some, everything[[3, 1]], rtol=1e-12, atol=1e-12)
    seen = []
    monkeypatch.setattr(ocd_core.scoring.perturb, "_rows_within", lambda *_: 7)
    monkeypatch.setattr(ocd_core.scoring.perturb, "_PREFIX_BYTES", 1)
    resume = CutModel.resume
    monkeypatch.setattr(CutModel, "resume", lambda self, z, cut: seen.append(len(z)) or resume(self, z, cut))
    torch.testing.assert_close(losses(network, split, draws=50), everything, rtol=1e-12, atol=1e-12)
    assert max(seen) == 7
    assert not torch.equal(losses(network, split, draws=50, seed=1), everything)


@pytest.mark.parametrize("name", ["vector", "few positions", "image"])
def test_blocks_of_draws_are_independent(name, monkeypatch):
    network, split, _ = case(name)
    monkeypatch.setattr(ocd_core.scoring.perturb, "_NOISE_NUMBERS", 1)
    one_by_one = losses(network, split, draws=300)
    assert len(one_by_one[0].unique()) == 300
    monkeypatch.undo()
    assert ks_2samp(one_by_one[0], losses(network, split)[0]).pvalue > 0.01


@pytest.mark.parametrize("name", ["vector", "tokens"])
def test_a_model_that_cannot_be_traced_gives_the_same_losses(name):
    expected = losses(*case(name)[:2], draws=40)
    network, split, _ = case(name, Untraceable)
    assert not CutModel(network, "layer").traced
    torch.testing.assert_close(losses(network, split, draws=40), expected)


@pytest.mark.parametrize(("tokens", "features"), [(3, 6), (2, 260)])
def test_equal_positions_move_together(tokens, features):
    class Spread(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(features, 4)

        def forward(self, x: Tensor) -> Tensor:
            h = self.layer(x)
            return (h - h[:, :1]).flatten(1)

    split = ArraySplit(torch.randn(1, 1, features).expand(2, tokens, features).clone(), torch.zeros(2, 1))
    split.x[1, -1] += 1
    result = losses(Spread(), split, [0, 1], draws=20)
    assert result[0].max() < 1e-12
    assert result[1].min() > 1e-6


def test_shared_draws_are_common_and_own_draws_are_not():
    for name, common in (("tokens", True), ("vector", False)):
        network, split, _ = case(name)
        split.x[1], split.y[1] = split.x[0], split.y[0]
        result = losses(network, split, [0, 1], draws=30)
        assert torch.allclose(result[0], result[1]) is common


@pytest.mark.parametrize("name", CASES)
def test_fresh_weights_replace_the_layers_own_and_are_common_to_all_samples(name):
    network, split, _ = case(name)
    split.x[1], split.y[1] = split.x[0], split.y[0]
    scale = 0.2 / CutModel(network, "layer").weight_OI.shape[1] ** 0.5
    got = losses(network, split, [0, 1], scale, fresh=True)
    torch.testing.assert_close(got[0], got[1])
    around = losses(network, split, [0], scale)[0]
    with torch.no_grad():
        network.layer.weight.zero_()
    assert ks_2samp(got[0], losses_by_loop(network, "layer", split.x[0], split.y[0], scale, DRAWS, 1)).pvalue > 0.01
    assert ks_2samp(got[0], around).pvalue < 1e-3  # the test has power


def test_the_working_set_is_bounded():
    network, split, _ = case("image")
    seen = []

    class Watched(CutModel):
        def resume(self, z, cut):
            seen.append(len(z))
            return super().resume(z, cut)

    perturbed_losses(Watched(network, "layer"), ArrayTask(), split.batch(torch.tensor([0])), 0.1, 2000, 0, memory_mb=1)
    assert sum(n for n in seen if n > 2) == 2000  # before them: a few single ones to measure by and to check the cut
    assert 100 < max(seen) < 2**20 / (8 * 27 * 3)  # three times the layer's output, at least


def test_large_activations_before_the_layer_bound_the_samples_at_once(monkeypatch):
    torch.manual_seed(0)
    wide = nn.Sequential(nn.Linear(7, 50_000), nn.Tanh(), nn.Linear(50_000, 7))
    network = Mixed(nn.Linear(7, 5), 5)
    network.before = wide
    split = ArraySplit(torch.randn(12, 7), torch.arange(12) % 3)
    everything = losses(network, split, range(12), draws=20)
    seen, prefix = [], CutModel.prefix
    monkeypatch.setattr(CutModel, "prefix", lambda self, x: seen.append(len(x[0])) or prefix(self, x))
    monkeypatch.setattr(ocd_core.scoring.perturb, "_MEMORY_MB", 12)
    torch.testing.assert_close(losses(network, split, range(12), draws=20), everything, rtol=1e-5, atol=1e-5)
    # a sample has 100,000 values in float32 at least: 30 of them do not fit, nor do three times as many with gradients
    assert 1 < max(seen) <= 12 * 2**20 // (4 * 100_000) // 3
    assert sum(seen) >= 12


def test_noise_relative_to_the_layers_rms():
    network, _, _ = case("vector")
    model = CutModel(network, "layer")
    weight = network.layer.weight.detach().double().numpy()
    assert layer_scale(model, "relative", 0.5) == pytest.approx(0.5 * np.sqrt((weight**2).mean()))
    assert layer_scale(model, "absolute", 0.5) == 0.5
