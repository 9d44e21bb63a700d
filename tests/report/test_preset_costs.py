"""The operations of a preset, against a count by hand and one with real tensors; most with a small denoiser."""

import time

import pytest
import torch
from ruamel.yaml import YAML

from ocd_core.artifacts import Artifacts
from ocd_core.codes.condition import ConditionEncoder
from ocd_core.codes.representations.dense import Dense
from ocd_core.diffusion.model import DiffusionModel
from ocd_core.evaluation.result import Absent
from ocd_core.params_files import read_yaml
from ocd_core.presets import apply_preset
from ocd_core.report import preset_costs
from ocd_core.report.preset_costs import preset_flops, presets_not_run
from ocd_core.samples import Condition
from ocd_core.training.flops import flops
from tests.support.params import denoiser_params
from tests.support.repository import REPO
from tests.support.stores import class_store
from tests.support.toy import toy_params

SIZES, OUT, IN, EMBEDDING, WIDTH = [6, 5, 3], 5, 6, 4, 8
TEST_ROWS = 7


def write_params(root, task, values):
    (root / "params").mkdir()
    with (root / "params" / f"{task}.yaml").open("w") as file:
        YAML().dump(values, file)


@pytest.fixture
def run(tmp_path):
    """The stores of a task of images, and nothing else."""
    write_params(tmp_path, "digits", read_yaml(REPO / "params" / "mnist5k.yaml"))
    run = Artifacts("digits", root=tmp_path)
    class_store(run.overfit("train"))
    class_store(run.overfit("test"), rows=TEST_ROWS)
    return run


@pytest.fixture
def small(monkeypatch):
    """Presets with a small network in place of their U-Net."""

    def applied(*args):
        params, changes = apply_preset(*args)
        denoiser = denoiser_params(width=WIDTH, depth=2)
        diffusion = params.diffusion.model_copy(update={"denoiser": denoiser, "embedding": EMBEDDING})
        return params.model_copy(update={"diffusion": diffusion}), changes

    monkeypatch.setattr(preset_costs, "apply_preset", applied)
    return applied


@pytest.mark.parametrize(("preset", "updates", "steps"), [("paper", 10_000, 10), ("released", 20_000, 10)])
def test_operations_counted_by_hand(run, small, preset, updates, steps):
    """A map from a to b numbers costs 2 a b, and as much again for the gradient of its weights, and of its input."""
    of_inputs = sum(size * EMBEDDING for size in SIZES) + EMBEDDING**2 + OUT * IN * WIDTH  # which have no gradient
    inner = EMBEDDING * 2 * WIDTH + 2 * WIDTH**2 + WIDTH * OUT * IN
    forward, backward = 2 * (of_inputs + inner), 2 * (of_inputs + 2 * inner)
    expected = updates * 8 * (forward + backward) + TEST_ROWS * steps * forward
    assert preset_flops(run, preset) == expected


def test_operations_are_those_of_a_real_update(run, small):
    """One update on a whole batch of a model with real tensors, with `backward` as in training."""
    params = small("released", "digits", run.root)[0].diffusion
    model = DiffusionModel(ConditionEncoder(SIZES, EMBEDDING), Dense(OUT, IN, True), params)
    n = params.batch_size
    cond = Condition(*(torch.randn(n, size) for size in SIZES))
    t = torch.randint(1, params.timesteps, (n,))

    def update():
        model.predict(torch.randn(n, OUT, IN), t, model.embed(cond)).square().sum().backward()

    with torch.no_grad():
        draw = flops(lambda: model.predict(torch.randn(1, OUT, IN), t[:1], model.embed(cond.select(slice(0, 1)))))
    assert preset_flops(run, "released") == params.updates * flops(update) + TEST_ROWS * 10 * draw


def test_a_preset_without_a_run_says_how_long_it_takes(run, monkeypatch):
    costs = {"paper": 3 * 10**18, "released": None}
    monkeypatch.setattr(preset_costs, "preset_flops", lambda run, preset: costs[preset])
    assert presets_not_run(run, set()) == [
        Absent(
            row="ocd_paper",
            status="not run",
            why=(
                "training its U-Net and one draw per test sample take 3.0e+18 operations: about 21,000 hours of one "
                "core at 40 GFLOP/s, or 56 hours of a GPU at 15 TFLOP/s"
            ),
        )
    ]
    assert presets_not_run(run, {"paper"}) == []


def test_a_preset_for_other_domains_has_no_cost(tmp_path):
    write_params(tmp_path, "toy", toy_params())
    run = Artifacts("toy", root=tmp_path)
    assert preset_flops(run, "released") is None


def test_a_u_net_is_counted_without_computing(run):
    start = time.process_time()
    cost = preset_flops(run, "released")
    assert time.process_time() - start < 30  # a real update takes a minute
    # forward and backward pass of a sample: 0.37 TFLOP
    assert cost == pytest.approx(0.37e12 * 8 * 20_000, rel=0.02)
