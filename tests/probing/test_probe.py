"""Probes against plain loops, and on data where it is known whether Δ can be predicted."""

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from ocd_core.errors import UserError
from ocd_core.network.cut import CutModel
from ocd_core.network.moves import base_pass, outputs_with_move
from ocd_core.overfit.params import NOT_REFINED, OverfitParams
from ocd_core.probing import probe as probing
from ocd_core.probing.probe import Probe, cosine, cross_fitted, probe_layer, probe_steps, r2
from ocd_core.progress import no_progress
from ocd_core.rng import permutation
from ocd_core.samples import Condition
from ocd_core.scoring.params import ProbeParams
from tests.support.arrays import ArraySplit, ArrayTask

OVERFIT = OverfitParams(
    optimizer="sgd", lr=0.02, steps=3, until_converged=False, tolerance=1e-3, replicas=1, precision="float64",
    layout="dense", memory_mb=64, shard_mb=1, refine=NOT_REFINED,
)  # fmt: skip
PARAMS = ProbeParams(samples=80, components=12, updates=300)


def linear(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 3))


def splits(network: nn.Module, wrong: float, noise: float, counts=(150, 120)) -> list[ArraySplit]:
    """Targets that differ from the network's answers by a linear function of x and by noise."""
    g = torch.Generator().manual_seed(1)
    off = wrong * torch.randn(3, 4, generator=g)
    found = []
    for count in counts:
        x = torch.randn(count, 4, generator=g)
        with torch.no_grad():
            y = network(x) + x @ off.T + noise * torch.randn(count, 3, generator=g)
        found.append(ArraySplit(x, y))
    return found


def probed(wrong: float, noise: float, **changes):
    network = linear()
    params = PARAMS.model_copy(update=changes)
    return probe_layer(network, ArrayTask(), *splits(network, wrong, noise), "0", OVERFIT, params, seed=0)


def test_losses_and_norms_are_those_of_a_plain_loop() -> None:
    network = linear()
    train, val = splits(network, 1.0, 0.1, counts=(40, 30))  # fewer than the probe would take
    found = probe_layer(network, ArrayTask(), train, val, "0", OVERFIT, PARAMS, seed=0)
    before, after, rho = [], [], []
    for x, y in zip(val.x.double(), val.y.double(), strict=True):
        one = linear().double()
        start = one[0].weight.detach().clone()
        optimiser = torch.optim.SGD([one[0].weight], lr=OVERFIT.lr)
        for _ in range(OVERFIT.steps):
            optimiser.zero_grad()
            loss = (one(x) - y).square().mean()
            before += [loss.item()] if torch.equal(one[0].weight, start) else []
            loss.backward()
            optimiser.step()
        after.append((one(x) - y).square().mean().item())
        rho.append((one[0].weight - start).norm().item())
    assert (found.samples, found.val_samples) == (40, 30)
    assert found.val_loss == pytest.approx(np.mean(before), rel=1e-6)
    assert found.bound == pytest.approx(np.mean(after), rel=1e-6)
    assert found.val_rho == pytest.approx(np.median(rho), rel=1e-5)


def test_a_systematic_error_of_the_base_is_found() -> None:
    """The residual is a linear function of x, so Δ = lr · residual ⊗ x is a smooth one."""
    found = probed(wrong=1.0, noise=0.05)
    assert found.r2 > 0.7
    assert found.cosine > 0.7
    assert found.network_r2 > 0.3
    assert found.network_cosine > 0.5
    assert found.high < 0
    assert found.z < -4
    assert found.low < found.change < found.high
    assert found.gain > 0
    assert found.regression in ("kernel", "network", "tuned network")
    assert found.change < 0.3 * (found.bound - found.val_loss)  # a good part of the way to the bound


def test_noise_in_the_targets_is_not_taken_for_a_gain() -> None:
    found = probed(wrong=0.0, noise=1.0)
    assert abs(found.r2) < 0.2
    assert found.high >= 0
    assert found.bound < found.val_loss  # overfitting lowers the loss all the same


def test_the_loss_teaches_what_deltas_are_too_small_to_say() -> None:
    """After tiny steps even four times a predicted Δ changes little; what has learned from the loss moves further."""
    tiny = OVERFIT.model_copy(update={"lr": 1e-5})

    def after(updates: int) -> Probe:
        params = PARAMS.model_copy(update={"updates": updates})
        return probe_layer(linear(), ArrayTask(), *splits(linear(), 1.0, 0.05), "0", tiny, params, seed=0)

    found = after(300)
    assert found.regression == "tuned network"
    assert found.val_loss - found.bound < 0.01 * found.val_loss
    assert found.change < -0.1 * found.val_loss
    assert found.z < -4
    untaught, a_little = after(0), after(100)
    assert untaught.regression != "tuned network"
    assert abs(untaught.change) < 0.01 * found.val_loss
    assert found.change < a_little.change < untaught.change


@pytest.mark.parametrize("of", ["val", "train"])
def test_conditions_are_those_of_the_samples_whether_they_were_overfitted_or_not(of: str) -> None:
    network = linear()
    split = splits(network, 1.0, 0.1)[of == "val"]
    model = CutModel(network, "0")
    some = PARAMS.model_copy(update={"samples": 25})
    overfitted = probing._Overfitted.of(model, ArrayTask(), split, of, OVERFIT, some, 0, no_progress)
    found = probing._with_more(model, ArrayTask(), split, of, overfitted, 0)
    sample_id = found.sample_id(torch.arange(len(found)))
    assert len(found) == len(set(sample_id.tolist())) == min(100, len(split))
    assert set(overfitted.sample_id.tolist()) <= set(sample_id.tolist())
    wanted = base_pass(ArrayTask(), model, split.batch(sample_id)).condition
    for part, plain in zip(found.condition.parts(), wanted.parts(), strict=True):
        torch.testing.assert_close(part, plain)


class InputAlone(ArrayTask):
    """I(x) is the layer's input; the other parts are empty, as with texts."""

    def condition(self, batch, layer_input, activation, output, model=None) -> Condition:
        empty = layer_input.new_empty(len(layer_input), 0)
        return Condition(layer_input, empty, empty)


def test_parts_that_a_task_leaves_empty() -> None:
    network = linear()
    found = probe_layer(network, InputAlone(), *splits(network, 1.0, 0.05), "0", OVERFIT, PARAMS, seed=0)
    assert found.r2 > 0.5
    assert found.high < 0


def test_more_validation_samples_are_judged_than_overfitted() -> None:
    network = linear()
    train, val = splits(network, 1.0, 0.1)
    params = PARAMS.model_copy(update={"samples": 25})
    found = probe_layer(network, ArrayTask(), train, val, "0", OVERFIT, params, seed=0)
    assert (found.samples, found.val_samples) == (25, 100)
    rows = permutation(120, 0, "probed samples", "val")
    with torch.no_grad():
        loss_M = (network(val.x[rows[:100]]) - val.y[rows[:100]]).square().mean(1)
    assert found.val_loss == pytest.approx(float(loss_M.mean()), rel=1e-5)
    few = ArraySplit(val.x[rows[:25]], val.y[rows[:25]])
    own = probe_layer(network, ArrayTask(), train, few, "0", OVERFIT, params, seed=0)
    assert found.bound - found.val_loss == pytest.approx(own.bound - own.val_loss, rel=1e-5)


def test_the_probe_is_repeatable_and_leaves_the_network_alone() -> None:
    network = linear()
    before = {k: v.clone() for k, v in network.state_dict().items()}
    parts = splits(network, 1.0, 0.1)
    runs = [probe_layer(network, ArrayTask(), *parts, "0", OVERFIT, PARAMS, seed=3) for _ in range(2)]
    assert runs[0] == runs[1]
    assert all(torch.equal(v, before[k]) for k, v in network.state_dict().items())


def test_the_losses_of_the_base_are_computed_once(monkeypatch) -> None:
    """Two regressions with five factors each, and the base, on one batch of validation samples."""
    moves = []

    def seen(model, cut, move):
        moves.append(move)
        return outputs_with_move(model, cut, move)

    monkeypatch.setattr(probing, "outputs_with_move", seen)
    probed(wrong=1.0, noise=0.1)
    assert [bool((move == 0).all()) for move in moves] == [True] + 10 * [False]
    torch.testing.assert_close(moves[10], 16 * moves[6], rtol=1e-6, atol=0)  # the network's, times 4 and .25


def test_components_are_at_most_as_many_as_the_deltas_have() -> None:
    assert probed(wrong=1.0, noise=0.1, components=100).components == 12  # 3 × 4 weights


def test_progress_ends_at_the_announced_total() -> None:
    network, seen = linear(), []
    train, val = splits(network, 1.0, 0.1)
    probe_layer(network, ArrayTask(), train, val, "0", OVERFIT, PARAMS, 0, lambda done, note: seen.append(done))
    assert seen[-1] == probe_steps(train, val, PARAMS) == 160


def test_the_choice_is_made_on_the_other_half() -> None:
    rng = np.random.default_rng(0)
    losses_CM = rng.normal(size=(7, 40))
    best, chosen_M = cross_fitted(losses_CM, seed=0)
    assert best == losses_CM.mean(1).argmin()
    used = np.array([np.flatnonzero(losses_CM[:, m] == chosen_M[m])[0] for m in range(40)])
    halves = [used == one for one in np.unique(used)]
    assert [half.sum() for half in halves] == [20, 20]
    for mine, other in (halves, halves[::-1]):
        assert set(used[mine]) == {losses_CM[:, other].mean(1).argmin()}


def test_the_choice_for_a_group_is_made_on_other_groups() -> None:
    rng = np.random.default_rng(1)
    groups = np.repeat([5, 3, 8, 1], [4, 12, 9, 6])
    losses_CM = rng.normal(size=(7, 31))
    _, chosen_M = cross_fitted(losses_CM, 0, groups)
    used = np.array([np.flatnonzero(losses_CM[:, m] == chosen_M[m])[0] for m in range(31)])
    choices = {g: set(used[groups == g]) for g in groups}
    assert all(len(chosen) == 1 for chosen in choices.values())
    parts = [np.isin(groups, [g for g in choices if choices[g] == chosen]) for chosen in (choices[5], choices[3])]
    for own, other in (parts, parts[::-1]) if choices[5] != choices[3] else ():
        assert set(used[own]) == {losses_CM[:, other].mean(1).argmin()}
    alone = cross_fitted(losses_CM, 0, np.zeros(31, dtype=np.int64))
    assert (alone[0], alone[1].tolist()) == (0, losses_CM[0].tolist())


def test_interval_and_z_are_those_of_the_groups(monkeypatch) -> None:
    """With groups of one size, those of a paired t test of the groups' means."""
    seen = {}

    def recorded(losses_CM, seed, groups_M):
        best, chosen_M = cross_fitted(losses_CM, seed, groups_M)
        seen.update(base=losses_CM[0], chosen=chosen_M, groups=groups_M)
        return best, chosen_M

    monkeypatch.setattr(probing, "cross_fitted", recorded)
    network = linear()
    train, val = splits(network, 1.0, 0.5)
    val.groups = torch.arange(120) % 6
    found = probe_layer(network, ArrayTask(), train, val, "0", OVERFIT, PARAMS, seed=0)
    means = [np.array([seen[of][seen["groups"] == g].mean() for g in range(6)]) for of in ("chosen", "base")]
    test = stats.ttest_rel(*means)
    assert (found.val_samples, found.val_groups) == (120, 6)
    assert seen["groups"].tolist() == val.groups.tolist()
    assert found.z == pytest.approx(test.statistic)
    assert (found.low, found.high) == pytest.approx(test.confidence_interval())
    del val.groups
    plain = probe_layer(network, ArrayTask(), train, val, "0", OVERFIT, PARAMS, seed=0)
    test = stats.ttest_rel(seen["chosen"], seen["base"])
    assert plain.val_groups == 120
    assert (plain.low, plain.high) == pytest.approx(test.confidence_interval())


def test_few_of_the_groups_are_judged() -> None:
    """Each sample's own group is taken, not that of its place."""
    network = linear()
    train, val = splits(network, 1.0, 0.1)
    val.groups = torch.arange(120) // 2
    few = PARAMS.model_copy(update={"samples": 20})
    found = probe_layer(network, ArrayTask(), train, val, "0", OVERFIT, few, seed=0)
    rows = permutation(120, 0, "probed samples", "val")[:80]
    assert found.val_groups == len(set((rows // 2).tolist())) < 80


def test_r2_and_cosine_by_hand() -> None:
    delta = torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]]])
    guess = torch.tensor([[[1.0, 0.0]], [[1.0, 1.0]]])
    mean = torch.tensor([[0.5, 0.5]])
    assert r2(guess, delta, mean) == pytest.approx(1 - 1 / 1.0)
    assert cosine(guess, delta) == pytest.approx((1 + 2**-0.5) / 2)
    assert r2(guess, delta[:1].expand(2, 1, 2), delta[0]) == 0.0


def test_a_layer_whose_deltas_do_not_fit_is_refused(monkeypatch) -> None:
    monkeypatch.setattr(probing, "_DELTAS_MB", 0)
    with pytest.raises(UserError, match=r"layer '0' has 12 weights, too many to probe"):
        probed(wrong=1.0, noise=0.1)


def test_deltas_without_differences_are_refused() -> None:
    network = linear().requires_grad_(False)
    network[0].weight.zero_()
    network[0].bias.zero_()
    train, val = splits(network, 0.0, 0.0)  # all losses are exactly 0
    with pytest.raises(UserError, match="every sample the same Δ"):
        probe_layer(network, ArrayTask(), train, val, "0", OVERFIT, PARAMS, seed=0)


def test_a_single_sample_has_no_gain() -> None:
    losses_CM = np.arange(5, 0, -1, dtype=np.float64)[:, None]
    best, chosen_M = cross_fitted(losses_CM, 0)
    assert best == 0
    assert chosen_M.tolist() == [5.0]
