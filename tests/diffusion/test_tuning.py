"""Tuning on the task's loss: gradients against a plain loop over samples, choices on validation, and resuming."""

import copy
import math
from types import ModuleType

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from ocd_core.codes.condition import ConditionEncoder
from ocd_core.codes.representations.dense import Dense
from ocd_core.codes.representations.factored import Factored
from ocd_core.codes.representations.pca import Pca
from ocd_core.diffusion import tuning
from ocd_core.diffusion.draw import draw
from ocd_core.diffusion.drawn_moves import DrawnMoves
from ocd_core.diffusion.model import DiffusionModel
from ocd_core.diffusion.sampling_params import SamplingParams
from ocd_core.diffusion.tuning import TuningLoss, _denoising, ddim_draw, tune
from ocd_core.diffusion.tuning_params import TuningParams
from ocd_core.errors import UserError
from ocd_core.network.cut import CutModel
from ocd_core.network.moved_loss import MovedLoss
from ocd_core.network.moves import base_pass
from ocd_core.rng import derive_seed, sample_normal, torch_generator
from ocd_core.samples import Samples, whole_split
from ocd_core.tasks.draws_inputs import DrawsInputs
from ocd_core.training.flops import backward_flops
from ocd_core.training.loop import ALONE
from ocd_core.training.tried import Resume
from tests.support.arrays import ArraySplit, ArrayTask
from tests.support.params import denoiser_params, diffusion_params, representation_params, tuning_params

INS, WIDTH, CLASSES, T = 5, 4, 3, 6
TRAIN, VAL = 24, 10


class Averaging(ArrayTask):
    """Probabilities are averaged, not logits."""

    def combine(self, outputs_KN: Tensor) -> Tensor:
        return F.log_softmax(outputs_KN, -1).logsumexp(0)


TASK = Averaging()


def base() -> CutModel:
    with torch.random.fork_rng([]):
        torch.manual_seed(0)
        network = nn.Sequential(nn.Linear(INS, WIDTH), nn.Tanh(), nn.Linear(WIDTH, CLASSES))
    return CutModel(network.eval(), "0", "float32")


BASE = base()


def samples(count: int, seed: int) -> Samples:
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(count, INS, generator=g)
    split = ArraySplit(x, (x[:, 0] > 0).long() + (x[:, 1] > 0.5).long())
    return Samples(split, base_pass(TASK, BASE, split.batch(whole_split(split))).condition)


SAMPLES = samples(TRAIN, 1), samples(VAL, 2)


def representation(name: str):
    deltas = torch.randn(20, WIDTH, INS, generator=torch.Generator().manual_seed(3))
    if name == "pca":
        return Pca.fit(deltas, None, representation_params("pca", 3), True)
    return Factored(WIDTH, INS, True) if name == "factored" else Dense(WIDTH, INS, True)


def model(name: str = "pca", **changes) -> DiffusionModel:
    values = {"timesteps": T, "embedding": 8, "denoiser": denoiser_params(width=8, depth=1), **changes}
    params = diffusion_params(**values)
    with torch.random.fork_rng([]):
        torch.manual_seed(5)
        return DiffusionModel(ConditionEncoder.from_condition(SAMPLES[0].condition, 8), representation(name), params)


def rho(cond) -> Tensor:
    """A stand-in for the scale network."""
    return 0.1 + cond.base_output[:, 0].square()


def objective(net: DiffusionModel, draws: int, steps: int = 1, batch: int = 7) -> MovedLoss:
    scale = rho if net.representation.uses_scale else None
    moves = DrawnMoves(net, scale, draws, ddim_draw(net, steps), True, 4)
    return MovedLoss(TASK, BASE, moves, *SAMPLES, batch, 4, "tuning")


def answer(delta_OI: Tensor, x: Tensor) -> Tensor:
    """The output for one sample with its own weights."""
    weight = BASE.network.get_parameter("0.weight").detach() + delta_OI
    return functional_call(BASE.network, {"0.weight": weight}, (x[None],))


def one_draw(net: DiffusionModel, i: int, noise: Tensor, times: list[int]) -> Tensor:
    """Δ of training sample i: DDIM written out (Song et al., 2020, Eq. 12), then the definition of the code."""
    cond = SAMPLES[0].condition.select(slice(i, i + 1))
    bars, omega = net.schedule.alphas_bar.tolist(), noise[None]
    for t, to in zip(times, [*times[1:], 0], strict=True):
        out = net.denoiser(omega, net.encoder(cond) + net.time(torch.tensor([t])))
        signal, sigma = math.sqrt(bars[t]), math.sqrt(1 - bars[t])
        if net.params.prediction == "x0":
            x0 = out
            eps = (omega - signal * x0) / sigma
        else:
            x0, eps = signal * omega - sigma * out, sigma * omega + signal * out
        omega = math.sqrt(bars[to]) * x0 + math.sqrt(1 - bars[to]) * eps
    space = net.representation
    if not space.uses_scale:
        return (space.mean + space.scale * omega[0] @ space.basis).view(WIDTH, INS)
    unit = omega[0] / omega[0].norm() * rho(cond)
    if isinstance(space, Dense):
        return unit
    x = SAMPLES[0].split.x[i]
    return unit[:, None] * x[None] / x.norm()


@pytest.mark.parametrize(
    ("name", "prediction", "draws", "times"),
    [("pca", "x0", 1, [T]), ("pca", "v", 3, [T]), ("factored", "x0", 2, [T]), ("dense", "x0", 2, [T]),
     ("pca", "x0", 2, [6, 4, 2]), ("factored", "v", 1, [6, 3])],
)  # fmt: skip
def test_loss_and_gradient_are_those_of_a_loop_over_samples(name, prediction, draws, times):
    net = model(name, prediction=prediction).train()
    found = objective(net, draws, len(times)).loss(update=9, part=0, parts=1)
    ids = torch.randint(TRAIN, (7,), generator=torch_generator(4, "tuning update", 9)).tolist()
    losses = []
    for place, i in enumerate(ids):
        outputs = []
        for k in range(draws):
            (noise,) = sample_normal(net.shape, [place], 4, "tuning", 9, k, 0)
            outputs.append(answer(one_draw(net, i, noise, times), SAMPLES[0].split.x[i]))
        probabilities = torch.stack(outputs).softmax(-1).mean(0)
        mean = outputs[0].log_softmax(-1) if draws == 1 else probabilities.log()
        losses.append(-mean[0, SAMPLES[0].split.y[i]])
    expected = torch.stack(losses).mean()
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    parameters = [p for p in net.parameters() if p.requires_grad]
    mine, theirs = (torch.autograd.grad(v, parameters) for v in (found, expected))
    assert max(float(g.abs().max()) for g in theirs) > 1e-3
    for a, b in zip(mine, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_parts_add_up_to_the_batch():
    loss = objective(model(), 2)
    parts = sum(float(loss.loss(3, part, 4).detach()) for part in range(4))
    assert parts == pytest.approx(float(loss.loss(3, 0, 1).detach()), rel=1e-5)


def test_a_constant_answer_has_a_known_loss():
    """Validation under a denoiser that returns one code is that of one network with this Δ for all samples."""
    net = model()
    nn.init.zeros_(net.denoiser.last.weight)
    net.denoiser.last.bias.data = torch.tensor([0.5, -1.0, 2.0])
    delta_OI = net.representation.decode(net.denoiser.last.bias.detach()[None], None)[0]
    network = copy.deepcopy(BASE.network)
    network[0].weight.data += delta_OI
    split = SAMPLES[1].split
    expected = F.cross_entropy(network(split.x), split.y).item()
    assert objective(net, 1).validate()["val_loss"] == pytest.approx(expected, rel=1e-5)
    assert objective(net, 3).validate()["val_loss"] == pytest.approx(expected, rel=1e-5)


def test_validation_noise_depends_on_the_sample_alone():
    loss, again = objective(model(), 2), objective(model(), 2)
    again.rows = 3  # other chunks
    assert loss.validate()["val_loss"] == pytest.approx(again.validate()["val_loss"], rel=1e-6)


def test_the_tuned_model_draws_as_it_was_tuned():
    """A draw with `TuningParams.sampling` is the code that `DrawnMoves` decodes, for the same noise."""
    net = model().eval()
    cond, ids = SAMPLES[1].condition, torch.arange(VAL)
    for through, times in (("last", [T]), ("sampler", [6, 3])):
        params = tuning_params(through=through, steps=2)
        sampling = params.sampling(SamplingParams(sampler="ancestral", steps=9, eta=0.5, renormalise=False))
        assert (sampling.sampler, sampling.renormalise, sampling.steps) == ("ddim", False, len(times))
        codes = draw(net, cond, ids, 8, 1, sampling, 100)
        for i in range(VAL):
            (noise,) = sample_normal(net.shape, [i], 8, "draw", 1, 0)
            out = noise[None]
            for t, to in zip(times, [*times[1:], 0], strict=True):
                x0 = net.predict(out, torch.tensor([t]), net.embed(cond.select(slice(i, i + 1))))
                bars = net.schedule.bars
                eps = (out - math.sqrt(bars[t]) * x0) / math.sqrt(1 - bars[t])
                out = math.sqrt(bars[to]) * x0 + math.sqrt(1 - bars[to]) * eps
            torch.testing.assert_close(codes[i], out[0].detach(), rtol=1e-4, atol=1e-5)


def coded(net: DiffusionModel, part: Samples):
    g = torch.Generator().manual_seed(len(part.split))
    return torch.randn(len(part.split), *net.shape, generator=g), part.condition


def tuned(resume=None, progress=None, name="pca", net=None, **changes):
    net = model(name) if net is None else net
    values = {"updates": 12, "lrs": [1e-2, 3e-2], "validate_every": 3, "batch_size": 8, "accumulate": 2, **changes}
    params, scale = tuning_params(**values), rho if net.representation.uses_scale else None
    deltas = coded(net, SAMPLES[0]), coded(net, SAMPLES[1])
    return net, tune(TASK, BASE, net, scale, *SAMPLES, params, True, 0, deltas, progress, resume=resume)


def same(a, b) -> bool:
    """The same model, curve and metrics, resumed or not."""
    found = (a[1].curve, a[1].metrics) == (b[1].curve, b[1].metrics)
    return found and all(torch.equal(p, q) for p, q in zip(a[0].parameters(), b[0].parameters(), strict=True))


@pytest.mark.parametrize("name", ["pca", "factored"])
def test_tuning_lowers_the_loss_on_validation_and_says_what_it_did(name):
    before = objective(model(name).eval(), 2).validate()["val_loss"]
    net, found = tuned(name=name, draws=2, updates=60)
    own = derive_seed(0, "tuning")
    moves = DrawnMoves(net.eval(), rho if name == "factored" else None, 2, ddim_draw(net, 1), True, own)
    after = MovedLoss(TASK, BASE, moves, *SAMPLES, 8, own, "tuning").validate()["val_loss"]
    metrics = found.metrics
    assert after < 0.95 * before
    assert metrics["val_loss"] == pytest.approx(after, rel=1e-6)
    assert metrics["val_loss"] == min(row["val_loss"] for row in found.curve)
    assert metrics["val_loss"] == min(metrics["val_loss_lr_0.01"], metrics["val_loss_lr_0.03"])
    assert {row["tried_lr"] for row in found.curve} == {0.01, 0.03}
    assert metrics["updates"] == found.curve[-1]["update"] <= 120
    assert all(not p.requires_grad or p.grad is not None for p in net.parameters())
    assert BASE.network.get_parameter("0.weight").grad is None


def test_the_operations_are_those_of_all_updates():
    one = tuned(updates=3, lrs=[1e-2], draws=1)[1].metrics
    more = tuned(updates=6, lrs=[1e-2, 2e-2], draws=1)[1].metrics
    assert more["flops"] == 4 * one["flops"] > 0
    assert 1.5 < tuned(updates=3, lrs=[1e-2], draws=2)[1].metrics["flops"] / one["flops"] < 2.1


def rows_of_updates(monkeypatch) -> list[int]:
    """Filled with the number of samples of each loss that is taken on training samples."""
    found: list[int] = []
    losses = MovedLoss.losses

    def recorded(self, samples, rows, counter, update):
        if update is not None:
            found.append(len(rows))
        return losses(self, samples, rows, counter, update)

    monkeypatch.setattr(MovedLoss, "losses", recorded)
    return found


def test_the_operations_are_counted_on_no_more_samples_than_a_part_has(monkeypatch):
    net = model()
    loss = objective(net, 2, batch=8)
    whole = backward_flops(lambda: loss.loss(0, 0, 1), list(net.parameters()))
    assert tuned(updates=3, lrs=[1e-2], draws=2, accumulate=1)[1].metrics["flops"] == 3 * whole
    rows = rows_of_updates(monkeypatch)
    parts = tuned(updates=3, lrs=[1e-2], draws=2, accumulate=4)[1].metrics["flops"]
    assert set(rows) == {2}
    assert parts == pytest.approx(3 * whole, rel=0.05)  # each part embeds the timestep again


def test_where_tuning_only_hurts_the_model_stays_as_it_was():
    net, found = tuned(lrs=[30.0], clip=None, ema=0.0, updates=6)
    assert found.metrics["best_update"] == 0
    assert found.metrics["val_loss"] == found.metrics["val_loss_before"]
    assert all(torch.equal(p, q) for p, q in zip(net.parameters(), model().parameters(), strict=True))


def test_the_precision_of_the_diffusions_training_is_not_that_of_tuning():
    settings = {"delta_weight": 0.5, "updates": 6}
    assert same(tuned(net=model(precision="bf16"), **settings), tuned(**settings))


@pytest.mark.parametrize("stopped", [7, 17])  # with the first learning rate, and with the second
def test_an_interrupted_tuning_ends_with_the_same_bits(tmp_path, stopped):
    def interrupted(update, _text):
        if update == stopped:
            raise InterruptedError

    resume, whole = Resume(tmp_path, 4, "mine"), tuned(delta_weight=0.5)
    with pytest.raises(InterruptedError):
        tuned(resume, interrupted, delta_weight=0.5)
    done: list[int] = []
    again = tuned(resume, lambda update, _text: done.append(update), delta_weight=0.5)
    assert (again[1].resumed, whole[1].resumed) == (True, False)
    assert same(again, whole)
    assert done[0] == (5 if stopped == 7 else 17)  # the second began at 12, its checkpoint is of its update 4
    done.clear()
    assert same(tuned(Resume(tmp_path, 4, "another"), lambda u, _t: done.append(u), delta_weight=0.5), whole)
    assert done[0] == 1


def test_the_diffusions_own_loss_is_added_with_its_weight():
    net = model()
    moved = objective(net, 1)
    _, found = tuned(delta_weight=2.0, delta_timesteps="late", updates=3)
    assert all("val_delta_loss" in row for row in found.curve)

    class Three:
        def loss(self, _update, _part, parts):
            return torch.tensor(3.0) / parts

        def validate(self):
            return {"val_loss": 3.0}

    both = TuningLoss(moved, Three(), 2.0)
    assert float(both.loss(0, 0, 1).detach()) == pytest.approx(float(moved.loss(0, 0, 1).detach()) + 6)
    assert both.validate() == {**moved.validate(), "val_delta_loss": 3.0}


class SeedsOfInputs(DrawsInputs, Averaging):
    """Notes the seeds for which inputs are drawn."""

    def __init__(self) -> None:
        super().__init__()
        self.seeds: set[int] = set()

    def overfit_batch(self, split, sample_id, replica, step, seed):
        self.seeds.add(seed)
        return split.batch(sample_id)


def test_inputs_are_those_of_the_runs_seed_and_batches_are_drawn_as_ever(monkeypatch):
    """So tuning sees what overfitting saw."""
    task, params = SeedsOfInputs(), tuning_params(updates=3, lrs=[1e-2], validate_every=3, batch_size=8)
    args = [TASK, BASE, model(), None, *SAMPLES, params, True, 11]
    plain = tune(*args).curve
    args[0], args[2] = task, model()
    assert tune(*args).curve == plain
    assert task.seeds == {11}
    args[2] = model()
    assert tune(*args, inputs_seed=5).curve == plain
    assert task.seeds == {11, 5}


def test_tuning_may_have_more_parts_than_the_diffusions_batch_has_rows():
    """The last ones have none, which a U-Net could not take; all add up to the batch."""
    net = model("dense", batch_size=2, denoiser=denoiser_params(name="unet", width=4, depth=1, multipliers=[1]))
    deltas = coded(net, SAMPLES[0]), coded(net, SAMPLES[1])
    params = tuning_params(updates=2, lrs=[1e-2], batch_size=8, accumulate=5, delta_weight=0.5)
    denoising = _denoising(net, deltas, params, 0, ALONE)
    both = TuningLoss(objective(net, 1, batch=8), denoising, 0.5)
    whole, parts = both.loss(1, 0, 1), [both.loss(1, part, 5) for part in range(5)]
    torch.testing.assert_close(sum(parts), whole, rtol=1e-5, atol=1e-6)
    parameters = list(net.parameters())
    for a, b in zip(*(torch.autograd.grad(v, parameters) for v in (sum(parts), whole)), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)
    assert tune(TASK, BASE, net, rho, *SAMPLES, params, True, 0, deltas).metrics["updates"] == 2


def rows_of_memory(monkeypatch, of: ModuleType) -> list[int]:
    """Filled with the rows of a batch whose memory is estimated."""
    found: list[int] = []
    monkeypatch.setattr(of, "refuse_impossible", lambda params, *_args: found.append(params.batch_size))
    return found


def test_the_memory_is_that_of_all_rows_of_an_update(monkeypatch):
    """Draws of 8 samples, and the batch of the diffusion's own loss, if it is added."""
    rows = rows_of_memory(monkeypatch, tuning)
    for weight in (0.0, 0.5):
        tuned(updates=3, draws=3, delta_weight=weight, through="sampler", steps=2)
    assert rows == [8 * 3 * 2, 8 * 3 * 2 + model().params.batch_size]


def test_late_timesteps_are_the_noisy_half():
    net = model()
    deltas = coded(net, SAMPLES[0]), coded(net, SAMPLES[1])
    for timesteps, first in (("all", 1), ("late", 3)):
        params = tuning_params(delta_weight=1.0, delta_timesteps=timesteps)
        found = _denoising(net, deltas, params, 0, ALONE)
        drawn = torch.cat([found.draw(k)[1] for k in range(40)])
        assert set(drawn.tolist()) == set(found.val_t.tolist()) == set(range(first, T + 1))
    assert _denoising(net, deltas, tuning_params(delta_weight=0.0), 0, ALONE) is None


def test_what_cannot_be_tuned_is_refused():
    with pytest.raises(UserError, match=r"tuning.batch_size is 4 for all processes together .* 1 processes × 6 parts"):
        tuned(batch_size=4, accumulate=6)
    with pytest.raises(ValueError, match="is named twice"):
        tuning_params(lrs=[1e-3, 1e-3])
    assert TuningParams(**{**tuning_params().model_dump(), "through": "last", "steps": 7}).sampler_steps == 1


def test_the_diffusions_own_loss_keeps_its_metric():
    net = model()
    deltas = coded(net, SAMPLES[0]), coded(net, SAMPLES[1])
    net.params = net.params.model_copy(update={"metric": "gauss_newton"})
    metrics = tuple(torch.eye(codes.shape[1]).expand(len(codes), -1, -1) * 3 for codes, _ in deltas)
    params = tuning_params(delta_weight=1.0)
    weighted = _denoising(net, deltas, params, 0, ALONE, metrics)
    with pytest.raises(AssertionError):
        _denoising(net, deltas, params, 0, ALONE)
    net.params = net.params.model_copy(update={"metric": "euclidean"})
    plain = _denoising(net, deltas, params, 0, ALONE)
    assert weighted.validate()["val_loss"] == pytest.approx(3 * plain.validate()["val_loss"], rel=1e-5)
