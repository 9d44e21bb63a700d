import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.special import entr
from scipy.stats import gaussian_kde
from torch import nn

from ocd_core.errors import UserError
from ocd_core.models.mlp import MLP
from ocd_core.network.cut import CutModel
from ocd_core.scoring.entropy import entropy_gkde
from ocd_core.scoring.params import CandidateParams, LayerParams, ProbeParams, ScoringParams
from ocd_core.scoring.perturb import perturbed_losses
from ocd_core.scoring.scores import (
    LayerScore,
    close_call,
    convergence_table,
    layers_report,
    layers_to_score,
    rank_layers,
    score_layers,
    score_table,
    scores_to_json,
    scoring_steps,
    select_layer,
)
from tests.support.arrays import ArraySplit, ArrayTask, losses_by_loop


def score(name, entropy, kind="linear", without=0, stderr=0.1, rank=0):
    return LayerScore(name, kind, 10, entropy, stderr, 10, without, 100, 0.1, rank)


RANKED = rank_layers([score("c1", 1.0, "conv"), score("a", 3.0), score("c2", 4.0, "conv"), score("b", 2.0)])


def layer(select="entropy", names=None, kinds=("linear", "conv")):
    probe = ProbeParams(samples=20, components=2, updates=50)
    return LayerParams(select=select, candidates=CandidateParams(names=names, kinds=list(kinds)), probe=probe)


def test_ranking_is_by_entropy_and_ties_keep_the_models_order():
    assert [(s.name, s.rank) for s in RANKED] == [("c2", 1), ("a", 2), ("b", 3), ("c1", 4)]
    tied = rank_layers([score("x", 1.0), score("y", 1.0)])
    assert [s.name for s in tied] == ["x", "y"]


def test_layers_without_density_on_most_samples_come_last():
    scores = [score("dead", math.nan, without=10), score("most", 9.0, without=6), score("half", 1.0, without=5)]
    assert [s.name for s in rank_layers(scores)] == ["half", "most", "dead"]


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        (layer(), ["c2", "a", "b", "c1"]),
        (layer(kinds=["linear"]), ["a", "b"]),
        (layer(names=["c1", "b"], kinds=["linear"]), ["b", "c1"]),
        (layer("b"), ["b", "c2", "a", "c1"]),
        (layer("b", kinds=["linear"]), ["b", "a"]),
        (layer("c1", kinds=["linear"]), ["c1", "a", "b"]),
    ],
)
def test_selection(params, expected):
    assert [select_layer(RANKED, params, r) for r in range(1, len(expected) + 1)] == expected
    assert list(layers_report(RANKED, params)["used"].values()) == expected
    for rank in (0, len(expected) + 1):
        with pytest.raises(UserError, match="rank"):
            select_layer(RANKED, params, rank)


def test_unknown_names_are_refused():
    with pytest.raises(UserError, match=r"layer\.select: layer 'fc9' does not exist.*c2, a, b, c1"):
        select_layer(RANKED, layer("fc9"), 1)
    with pytest.raises(UserError, match=r"layer\.candidates\.names: layer 'fc9'"):
        select_layer(RANKED, layer(names=["fc9"]), 1)
    with pytest.raises(UserError, match="no scored layer is of kind conv"):
        layers_report([score("a", 1.0)], layer(kinds=["conv"]))


def frozen_but(*names):
    model = MLP(3, 2, [4, 4])
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.removesuffix(".weight").removesuffix(".bias") in names)
    return model


def test_frozen_layers_are_scored_only_if_they_are_named():
    assert layers_to_score(frozen_but("layers.1", "layers.2"), layer()) == ["layers.1", "layers.2"]
    assert layers_to_score(frozen_but("layers.1"), layer("layers.0")) == ["layers.0", "layers.1"]
    assert layers_to_score(frozen_but("layers.1"), layer(names=["layers.2"])) == ["layers.2"]
    assert layers_to_score(frozen_but(), layer()) == ["layers.0", "layers.1", "layers.2"]


def test_only_named_candidates_are_scored():
    """A network may have dozens of layers, each of which takes as long as one that matters."""
    model = MLP(3, 2, [4, 5])
    assert layers_to_score(model, layer(names=["layers.2", "layers.0"])) == ["layers.0", "layers.2"]
    assert layers_to_score(model, layer("layers.1", names=["layers.2"])) == ["layers.1", "layers.2"]


def test_layers_that_move_as_one_are_scored_beside_the_others():
    model = MLP(3, 3, [3])
    assert layers_to_score(model, layer("layers.0+layers.1")) == ["layers.0", "layers.1", "layers.0+layers.1"]


@pytest.mark.parametrize("wanted", [layer("fc9"), layer(names=["layers.0", "fc9"])])
def test_a_layer_that_does_not_exist_is_refused_before_scoring(wanted):
    with pytest.raises(
        UserError, match=r"layer 'fc9' does not exist; the layers to choose from are layers.0, layers.1"
    ):
        layers_to_score(MLP(3, 2, [4]), wanted)


def test_report_survives_json():
    scores = rank_layers([score("a", 1.5), score("dead", math.nan, without=10, stderr=math.nan)])
    report = json.loads(json.dumps(layers_report(scores, layer()), allow_nan=False))
    assert report["used"] == {"1": "a", "2": "dead"}
    assert [s["name"] for s in report["scores"]] == ["a", "dead"]
    assert [s["entropy"] for s in report["scores"]] == [1.5, None]
    assert [(r["layer"], r["entropy"], r["stderr"], r["without_density"]) for r in score_table(scores)] == [
        ("a", 1.5, 0.1, 0.0),
        ("dead", None, None, 1.0),
    ]


def test_close_call():
    assert close_call([score("a", 2.0), score("b", 1.9)])
    assert close_call([score("a", 2.0), score("b", 1.0)]) is None
    assert close_call([score("a", 2.0)]) is None
    assert layers_report(rank_layers([score("a", 2.0), score("b", 1.9)]), layer())["warning"].startswith(
        "the scores of a"
    )
    assert layers_report(rank_layers([score("a", 2.0), score("b", 1.9)]), layer("b"))["warning"] is None


def test_close_call_pairs_the_samples():
    # the samples differ by far more than the layers do, but each in the same way
    b = [1.0, 5.0, 9.0, 3.0]
    scores = [score("a", 4.65, stderr=1.7), score("b", 4.5, stderr=1.7)]
    assert close_call(scores)
    a = [x + d for x, d in zip(b, (0.1, 0.2, 0.1, 0.2), strict=True)]
    paired = [replace(s, per_sample=tuple(v)) for s, v in zip(scores, (a, b), strict=True)]
    assert close_call(paired) is None
    unclear = [paired[0], replace(paired[1], per_sample=(1.5, 4.0, 9.5, 3.5))]
    assert "standard error" in close_call(unclear)


def mlp_data(samples=6):
    g = torch.Generator().manual_seed(1)
    return ArraySplit(torch.randn(samples, 5, generator=g), torch.randint(0, 3, (samples,), generator=g))


def params(**change):
    return ScoringParams(**{"samples": 4, "draws": 50, "noise": "absolute", "scale": 0.1} | change)


def test_same_seed_same_scores_and_the_model_stays():
    torch.manual_seed(0)
    model, split = MLP(5, 3, (8,)), mlp_data()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    done = []
    first = score_layers(model, ArrayTask(), split, params(), 3, lambda n, note: done.append(n))
    assert done[-1] == 8
    assert first == score_layers(model, ArrayTask(), split, params(), 3)
    assert first != score_layers(model, ArrayTask(), split, params(), 4)
    assert all(torch.equal(before[k], v) for k, v in model.state_dict().items())
    assert {s.name for s in first} == {"layers.0", "layers.1"}
    assert [s.samples for s in first] == [4, 4]


def test_convergence_is_the_score_of_the_first_draws():
    torch.manual_seed(0)
    model, split = MLP(5, 3, (8,)), mlp_data()
    first = score_layers(model, ArrayTask(), split, params(samples=6, draws=80), 0)[0]
    assert [d for d, _ in first.convergence] == [10, 20, 40, 80]
    assert first.convergence[-1][1] == first.entropy
    batch = split.batch(torch.arange(6))
    losses = perturbed_losses(CutModel(model, first.name), ArrayTask(), batch, 0.1, 80, 0)
    assert first.convergence[1][1] == pytest.approx(entropy_gkde(losses[:, :20]).mean(), rel=1e-12)
    assert np.mean(first.per_sample) == pytest.approx(first.entropy, rel=1e-12)
    assert convergence_table([first])[0] == {"layer": first.name, "draws": 10, "entropy": first.convergence[0][1]}
    stored = scores_to_json([first])[0]["convergence"]
    assert [tuple(pair) for pair in stored] == list(first.convergence)


@pytest.mark.parametrize("layer_name", ["layers.0", "layers.1"])
def test_score_of_a_plain_loop(layer_name):
    """Eq. 3 sample by sample and draw by draw, with scipy's density."""
    torch.manual_seed(0)
    model, split = MLP(5, 3, (8,)), mlp_data(4)
    got = {s.name: s for s in score_layers(model, ArrayTask(), split, params(draws=1000), 0)}[layer_name]
    entropies = []
    for i in range(4):
        row = losses_by_loop(model, layer_name, split.x[i], split.y[i], 0.1, 1000, seed=i).numpy()
        kde = gaussian_kde(row, "silverman")
        grid = np.linspace(row.min() - np.ptp(row), row.max() + np.ptp(row), 2000)
        entropies.append(entr(kde(grid)).sum() * (grid[1] - grid[0]))
    # the standard error of one entropy from 1,000 draws is about 0.03
    assert got.per_sample == pytest.approx(entropies, abs=0.15)
    assert got.entropy == pytest.approx(np.mean(entropies), abs=0.07)


def test_a_layer_that_cannot_be_cut_is_left_out_with_a_warning():
    class Twice(MLP):
        def forward(self, x):
            return self.layers[1](self.layers[0](self.layers[0](x)))

    with pytest.warns(UserWarning, match=r"layers\.0.*left out.*2 times"):
        scores = score_layers(Twice(5, 3, (5,)), ArrayTask(), mlp_data(), params(), 0)
    assert [s.name for s in scores] == ["layers.1"]
    with pytest.raises(UserError, match="no layer that can be scored"):
        score_layers(torch.nn.Flatten(), ArrayTask(), mlp_data(), params(), 0)


def test_released_lenet5_ranks_as_found(shared_data, mnist_task, mnist_prepared):
    """Absolute noise: conv3 first, and fc1 first among the linear layers; relative noise: fc2 first."""
    model = mnist_task.build_model()
    mnist_task.load_checkpoint(model, shared_data / "released" / "checkpoint_lenet5.pth")
    train = mnist_task.open(mnist_prepared, "train")
    ranking = {
        noise: score_layers(model, mnist_task, train, params(samples=30, draws=200, noise=noise, scale=scale), 0)
        for noise, scale in (("absolute", 0.1), ("relative", 0.5))
    }
    names = {noise: [s.name for s in scores] for noise, scores in ranking.items()}
    assert names["absolute"][0] == "conv3"
    assert names["relative"][0] == "fc2"
    by_score = layer(kinds=["linear"])
    assert select_layer(ranking["absolute"], by_score, 1) == "fc1"
    assert select_layer(ranking["relative"], by_score, 1) == "fc2"
    assert layers_report(ranking["absolute"], by_score)["warning"] is None
    assert all(s.without_density == 0 for scores in ranking.values() for s in scores)


def test_relative_noise_is_absolute_noise_times_the_rms_weight():
    torch.manual_seed(0)
    model, split = MLP(5, 3, (8,)), mlp_data()
    rms = float(model.layers[1].weight.detach().double().square().mean().sqrt())
    relative = {s.name: s for s in score_layers(model, ArrayTask(), split, params(noise="relative", scale=0.5), 0)}
    absolute = {s.name: s for s in score_layers(model, ArrayTask(), split, params(scale=0.5 * rms), 0)}
    assert relative["layers.1"].scale_absolute == pytest.approx(0.5 * rms, rel=1e-12)
    assert relative["layers.1"].entropy == pytest.approx(absolute["layers.1"].entropy, rel=1e-12)


def test_samples_without_density_are_counted_and_not_in_the_mean():
    torch.manual_seed(0)
    model, split = MLP(5, 3, (8,)), mlp_data()
    split.x[:2] = 0  # no weight of the first layer touches them
    everyone = params(samples=6)
    with_zeros = {s.name: s for s in score_layers(model, ArrayTask(), split, everyone, 0)}
    assert (with_zeros["layers.0"].without_density, with_zeros["layers.1"].without_density) == (2, 0)
    rest = ArraySplit(split.x.clone(), split.y)
    rest.x[:2] = 1.0
    full = {s.name: s for s in score_layers(model, ArrayTask(), rest, everyone, 0)}
    assert full["layers.0"].without_density == 0
    assert math.isfinite(with_zeros["layers.0"].entropy)


def test_losses_that_are_not_finite_are_an_error():
    model, split = MLP(5, 3, (8,)), mlp_data()
    split.x[:] = math.inf
    with pytest.raises(UserError, match=r"not finite.*scoring\.scale"):
        score_layers(model, ArrayTask(), split, params(), 0)


class TwoHeads(nn.Module):
    """Two heads, each with an input of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(3, 2), nn.Linear(3, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.one(torch.tanh(x)) + self.two(torch.relu(x))


def test_the_score_of_two_layers_that_move_as_one():
    """Against losses under perturbations of both weights, set by hand."""
    torch.manual_seed(2)
    model, x, y = TwoHeads(), torch.randn(3, 3), torch.randn(3, 2)
    seen = []
    chosen = params(samples=3, draws=3000, scale=0.3)
    (found,) = score_layers(
        model, ArrayTask(), ArraySplit(x, y), chosen, 0, lambda done, _: seen.append(done), ["one+two"]
    )
    assert (found.name, found.kind, found.parameters) == ("one+two", "linear", 12)
    assert seen[-1] == scoring_steps(["one+two"], ArraySplit(x, y), chosen) == 3
    generator = torch.Generator().manual_seed(0)
    expected = []
    for i in range(3):
        moved = [
            torch.randn(3000, 2, 3, generator=generator) * 0.3 + layer.weight.detach()
            for layer in (model.one, model.two)
        ]
        bias = (model.one.bias + model.two.bias).detach()
        output = moved[0] @ torch.tanh(x[i]) + moved[1] @ torch.relu(x[i]) + bias
        expected.append((output - y[i]).square().mean(1).double())
    assert found.entropy == pytest.approx(float(entropy_gkde(torch.stack(expected).numpy()).mean()), abs=0.06)
