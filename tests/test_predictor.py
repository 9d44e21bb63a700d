"""A predictor put together by hand, against whole networks whose weights are set to θ + Δ one sample at a time."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ocd_core import predictor as module
from ocd_core.artifacts import Artifacts, write_json
from ocd_core.codes.condition import ConditionEncoder
from ocd_core.codes.representations import representation_class
from ocd_core.diffusion.draw import draw
from ocd_core.diffusion.model import DiffusionModel
from ocd_core.diffusion.sampling_params import SamplingParams
from ocd_core.errors import UserError
from ocd_core.files import sha256_file
from ocd_core.network.cut import CutModel
from ocd_core.network.moves import base_pass
from ocd_core.predictor import Predictor, validated_gain
from ocd_core.provenance import write_manifest
from ocd_core.samples import Batch
from ocd_core.scale.network import ScaleNetwork
from tests.support.arrays import ArrayTask
from tests.support.params import denoiser_params, diffusion_params, representation_params
from tests.support.toy import PointSet

SAMPLING = SamplingParams(sampler="ddim", steps=3, eta=0.0, renormalise=True)
LAYERS = {"head": "factored", "embed": "pca"}


class Doubling(ArrayTask):
    """An ensemble that is not the mean, so that one can tell who combines."""

    def combine(self, outputs_KN: Tensor) -> Tensor:
        return 2 * outputs_KN.sum(0)


def points(count: int = 7, seed: int = 0) -> Tensor:
    return torch.randn(count, 3, 4, generator=torch.Generator().manual_seed(seed))


def make(layer: str, **changes: Any) -> Predictor:
    """Random weights everywhere; `factored` has a scale, `pca` needs none."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        task, model = Doubling(), CutModel(PointSet(), layer)
        condition = base_pass(task, model, Batch((points(),), torch.zeros(7), torch.arange(7))).condition
        params = diffusion_params(
            representation=representation_params(LAYERS[layer], 3),
            embedding=8,
            denoiser=denoiser_params(width=8, depth=1),
        )
        outs, ins = model.weight_OI.shape
        if layer == "head":
            representation = representation_class("factored")(outs, ins, True)
        else:
            deltas = torch.randn(20, outs, ins)
            representation = representation_class("pca").fit(deltas, None, params.representation, True)
        diffusion = DiffusionModel(ConditionEncoder.from_condition(condition, 8), representation, params)
        scale = ScaleNetwork(ConditionEncoder.from_condition(condition, 8))
    return Predictor(task, model, diffusion, scale, SAMPLING, **{"seed": 5, **changes})


def deltas_by_hand(found: Predictor, x: Tensor, ids: list[int], k: int) -> list[Tensor]:
    """The Δ of draw k, decoded one sample at a time."""
    deltas = []
    for i, sample in enumerate(ids):
        one = torch.tensor([sample])
        base = base_pass(found.task, found.model, Batch((x[i : i + 1],), torch.zeros(1), one))
        space = found.diffusion.representation
        rho = found.scale.estimate(base.condition) if space.uses_scale else None
        code = draw(found.diffusion, base.condition, one, found.seed, k, SAMPLING, 1)
        deltas.append((found.gain or 1.0) * space.decode(code, rho, base.cut.layer_input_NI)[0])
    return deltas


@torch.no_grad()
def outputs_by_hand(found: Predictor, x: Tensor, deltas: list[Tensor]) -> Tensor:
    outputs = []
    for sample, delta in zip(x, deltas, strict=True):
        network: nn.Module = copy.deepcopy(found.model.network).double()
        network.get_submodule(found.model.layer_name).weight += delta.double()
        outputs.append(network(sample[None].double()))
    return torch.cat(outputs)


def near(found: Tensor, wanted: Tensor) -> None:
    torch.testing.assert_close(found.double(), wanted.double(), rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize("gain", [None, 0.25])
@pytest.mark.parametrize("layer", LAYERS)
def test_each_draw_is_a_network_with_weights_of_the_samples_own(layer: str, gain: float | None) -> None:
    found, x = make(layer, gain=gain), points()
    prediction = found.predict(x, draws=3)
    assert prediction.draws.shape == (3, 7, 2)
    for k in range(3):
        near(prediction.draws[k], outputs_by_hand(found, x, deltas_by_hand(found, x, list(range(7)), k)))
    near(prediction.base_output, found.model.network(x).detach())
    assert (prediction.draws[0] - prediction.base_output).abs().min() > 1e-4
    near(prediction.output, 2 * prediction.draws.sum(0))  # the task combines
    assert (prediction.rho is None) == (layer == "embed")


@pytest.mark.parametrize("layer", LAYERS)
def test_one_draw_is_the_first_networks_own_answer(layer: str) -> None:
    found, x = make(layer), points()
    one = found.predict(x)
    assert torch.equal(one.output, one.draws[0])
    near(one.output, found.predict(x, draws=3).draws[0])


@pytest.mark.parametrize("layer", LAYERS)
def test_a_mean_network_has_the_mean_of_the_drawn_weights(layer: str) -> None:
    found, x = make(layer, gain=0.5), points(4)
    mean = found.predict(x, draws=3, combine="mean_network")
    deltas = [
        torch.stack(by_draw).mean(0)
        for by_draw in zip(*(deltas_by_hand(found, x, [*range(4)], k) for k in range(3)), strict=True)
    ]
    near(mean.output, outputs_by_hand(found, x, deltas))
    assert mean.draws.shape == (0, 4, 2)


@pytest.mark.parametrize("layer", LAYERS)
def test_answers_do_not_depend_on_the_batches(layer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    x = points()
    whole = make(layer).predict(x, draws=2)
    seen = []
    monkeypatch.setattr(module, "rows_within", lambda *_args, **_more: 3)
    found = make(layer)
    passes = found.predict_pass
    monkeypatch.setattr(
        found, "predict_pass", lambda base, ids, *rest: seen.append(len(ids)) or passes(base, ids, *rest)
    )
    parts = found.predict([x], draws=2)
    assert seen == [3, 3, 1]
    for a, b in ((parts.output, whole.output), (parts.draws, whole.draws), (parts.base_output, whole.base_output)):
        near(a, b)
    if whole.rho is not None:
        near(parts.rho, whole.rho)


def test_a_draw_belongs_to_the_seed_and_the_samples_id() -> None:
    found, x = make("head"), points()
    ids = torch.tensor([40, 3, 11, 0, 7, 8, 9])
    named = found.predict(x, sample_id=ids)
    near(named.output, outputs_by_hand(found, x, deltas_by_hand(found, x, ids.tolist(), 0)))
    some = found.predict(x[2:4], sample_id=ids[2:4])
    near(some.output, named.output[2:4])
    near(found.predict(x).output[3], found.predict(x[3:4], sample_id=torch.tensor([3])).output[0])
    for other in (found.predict(x).output[:3], make("head", seed=6).predict(x, sample_id=ids).output[:3]):
        assert (other - named.output[:3]).abs().amax(1).min() > 1e-6


def test_networks_answer_in_eval_mode() -> None:
    found = make("head")
    assert not any(m.training for part in (found.diffusion, found.scale, found.model.network) for m in part.modules())


@pytest.mark.parametrize(("x", "draws"), [(torch.zeros(0, 3, 4), 1), (torch.zeros(2, 3, 4), 0), ((), 1)])
def test_nothing_to_do_is_refused(x: Any, draws: int) -> None:
    with pytest.raises(UserError, match=rf"predict needs at least one input and one draw \(draws={draws}\)"):
        make("head").predict(x, draws=draws)


def test_the_gain_is_that_of_the_control(tmp_path) -> None:
    run = Artifacts("toy", root=tmp_path)
    with pytest.raises(UserError, match=r"controls is missing; run 'dvc repro' or '.*stages\.train_controls"):
        validated_gain(run)
    for rows in ({}, {"ocd_gain": {}}, {"ocd_gain": {"gain": None}}, [], {"ocd_gain": []}, {"ocd_gain": {"gain": "1"}}):
        write_controls(run, {"rows": rows})
        with pytest.raises(UserError, match=r"config\.json holds no gain; run the stage train_controls again"):
            validated_gain(run)
    write_controls(run, [])
    with pytest.raises(UserError, match=r"config\.json holds no gain"):
        validated_gain(run)
    write_controls(run, {"rows": {"ocd_gain": {"gain": 0.75}}})
    assert validated_gain(run) == 0.75
    path = run.controls / "config.json"
    path.write_text(path.read_text().replace("0.75", "0.25"))
    with pytest.raises(UserError, match=r"controls/config\.json is damaged"):
        validated_gain(run)


def write_controls(run: Artifacts, config: Any) -> None:
    write_json(run.controls / "config.json", config)
    made = {"stage": "train_controls", "params": {}, "code": "", "inputs": {}}
    files = {"config.json": sha256_file(run.controls / "config.json")}
    write_manifest(run.controls, made, files)


def test_the_size_of_a_batch_is_measured_once_for_inputs_of_a_shape(monkeypatch: pytest.MonkeyPatch) -> None:
    found, calls = make("head"), []
    monkeypatch.setattr(module, "rows_within", lambda *_args, **_more: calls.append(1) or 4)
    found.predict(points(1))  # nothing to cut
    assert not calls
    for count in (3, 7, 5):
        found.predict(points(count))
    assert len(calls) == 1
    found.predict(torch.randn(3, 5, 4))
    assert len(calls) == 2
