import json
import math

import pytest
import torch

from ocd_core.config import CandidateParams, LayerParams, ScoringParams
from ocd_core.errors import UserError
from ocd_core.models.mlp import MLP
from ocd_core.scoring import (
    LayerScore,
    close_call,
    layers_report,
    rank_layers,
    score_layers,
    score_table,
    scores_from_json,
    scores_to_json,
    select_layer,
)
from tests.scoring_helpers import ArraySplit, ArrayTask


def score(name, entropy, kind="linear", without=0, stderr=0.1, rank=0):
    return LayerScore(name, kind, 10, entropy, stderr, 10, without, 100, 0.1, rank)


RANKED = rank_layers([score("c1", 1.0, "conv"), score("a", 3.0), score("c2", 4.0, "conv"), score("b", 2.0)])


def layer(select="auto", names=None, kinds=("linear", "conv")):
    return LayerParams(select=select, candidates=CandidateParams(names=names, kinds=list(kinds)))


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


def test_report_survives_json():
    scores = rank_layers([score("a", 1.5), score("dead", math.nan, without=10, stderr=math.nan)])
    report = json.loads(json.dumps(layers_report(scores, layer()), allow_nan=False))
    assert report["used"] == {"1": "a", "2": "dead"}
    back = scores_from_json(report["scores"])
    assert back[0] == scores[0]
    assert math.isnan(back[1].entropy)
    assert scores_to_json(back) == report["scores"]
    assert [(r["layer"], r["entropy"], r["stderr"], r["without_density"]) for r in score_table(scores)] == [
        ("a", 1.5, 0.1, 0.0),
        ("dead", None, None, 1.0),
    ]


def test_close_call():
    assert close_call([score("a", 2.0), score("b", 1.9)])
    assert close_call([score("a", 2.0), score("b", 1.0)]) is None
    assert close_call([score("a", 2.0)]) is None


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
