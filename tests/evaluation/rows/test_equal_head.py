"""The head of equal capacity: its size, what it adds to the base, its training and cost, and the runs without it."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from ocd_core.artifacts import Artifacts
from ocd_core.codes.condition import ConditionEncoder
from ocd_core.evaluation.rows.equal_head import EqualHead, Head, HeadLoss, parameters_of, width_for
from ocd_core.tasks.base import Task
from ocd_core.training.loop import Settings
from ocd_core.training.tried import optimise_with_rates
from tests.support.arrays import ArrayTask, Noisy, condition
from tests.support.runs import fit_row, val_pass

TRAINED: dict[str, Any] = {
    "depth": 2,
    "updates": 30,
    "batch_size": 16,
    "lrs": [1e-3, 1e-2],
    "validate_every": 5,
    "patience": 5,
}


def count(module: torch.nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize(
    ("sizes", "depth", "outputs"), [((7, 5, 3), 1, 2), ((1176, 400, 10), 2, 10), ((9, 0, 0), 3, 1)]
)
def test_its_width_gives_the_number_of_parameters(sizes: tuple[int, ...], depth: int, outputs: int) -> None:
    for wanted in (20_000, 300_000, 3_000_000):
        width = width_for(wanted, sizes, depth, outputs)
        found = parameters_of(sizes, width, depth, outputs)
        assert 0.9 <= found / wanted <= 1.1
        nearest = min(
            range(max(1, width - 5), width + 5), key=lambda w: abs(parameters_of(sizes, w, depth, outputs) - wanted)
        )
        assert width == nearest
    assert count(Head(ConditionEncoder(sizes, 6), depth, outputs)) == parameters_of(sizes, 6, depth, outputs)


def test_it_has_as_many_parameters_as_the_diffusion_model_within_a_tenth(run: Artifacts) -> None:
    row, fitting, fit = fit_row(run, "equal_head")
    wanted = count(fitting.predictor.diffusion)
    assert 0.9 <= count(row.head) / wanted <= 1.1
    assert fit.metrics["parameters"] == count(row.head)
    assert fit.metrics["parameters_of_ocd"] == wanted


def test_it_starts_from_the_base_and_the_best_weights_on_val_are_kept(run: Artifacts) -> None:
    row, fitting, fit = fit_row(run, "equal_head", **TRAINED)
    shared = val_pass(fitting)
    target = fitting.split("val").batch(shared.batch.sample_id).target
    task = fitting.task
    before, after = (float(task.loss(x, target).mean()) for x in (shared.base.output, row.outputs(shared)))
    assert fit.metrics["val_loss_before"] == pytest.approx(before, rel=1e-5)
    assert fit.metrics["val_loss"] == pytest.approx(after, rel=1e-5)
    assert after < before
    assert {entry["tried_lr"] for entry in fit.curve} == {1e-3, 1e-2}
    assert fit.metrics["val_loss"] == min(entry["val_loss"] for entry in fit.curve)
    # the sum, sample by sample, from the layers themselves
    head = row.head
    for n in range(3):
        parts = [part[n].flatten() for part in shared.base.condition.parts()]
        encoder = head.encoder
        h = sum(
            encoder.encoders[name]((x - encoder.standardise[name].mean) / encoder.standardise[name].std)
            for name, x in zip(("layer_input", "layer_activation", "base_output"), parts, strict=True)
        )
        for layer in head.hidden:
            h = layer(F.silu(h))
        expected = shared.base.output[n] + head.last(F.silu(h))
        torch.testing.assert_close(row.outputs(shared)[n], expected.detach().double(), rtol=1e-5, atol=1e-6)


def test_its_budget_is_what_ocd_costs(run: Artifacts, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = fit_row(run, "equal_head", updates=1)[2].flops
    assert plain is not None
    assert plain["allowed"] == plain["total"]
    monkeypatch.setattr("ocd_core.evaluation.context.Fitting.budget_flops", 7 * plain["total"])
    found = fit_row(run, "equal_head", updates=None, lrs=[1e-3, 1e-4], patience=100)[2]
    assert found.flops == {"allowed": 6 * plain["total"], "total": 6 * plain["total"]}
    assert found.metrics["updates"] == 6


def test_it_learns_what_the_features_say() -> None:
    """The targets are the base's outputs plus a known function of I(x)."""
    weight = torch.randn(3, 2, generator=torch.Generator().manual_seed(1))

    def answers(samples: int, seed: int) -> Any:
        cond = condition(samples, seed)
        output = torch.randn(samples, 2, generator=torch.Generator().manual_seed(seed))
        return cond, output, output + (cond.base_output @ weight).tanh()

    train, val = answers(400, 0), answers(100, 1)
    torch.manual_seed(0)
    head = Head(ConditionEncoder.from_condition(train[0], 32), 1, 2)
    objective = HeadLoss(ArrayTask(), head, train, val, 64, 0)
    start = float((val[2] - val[1]).square().mean())
    assert objective.validate()["val_loss"] == pytest.approx(start, rel=1e-5)
    optimise_with_rates(head, objective, Settings(300, 1e-2, 50, 10), [1e-2], 0, "head")
    assert objective.validate()["val_loss"] < 0.1 * start
    whole = objective.loss(3, 0, 1)
    torch.testing.assert_close(sum(objective.loss(3, part, 3) for part in range(3)), whole)


@pytest.mark.parametrize(
    ("task", "output", "why"),
    [
        (ArrayTask(), torch.zeros(1, 2), None),
        (ArrayTask(), torch.zeros(1), None),
        (ArrayTask(), torch.zeros(1, 4, 4), "an output of the base network is not a vector"),
        (ArrayTask(), (torch.zeros(1, 2),) * 2, "an output of the base network is not a vector"),
        (Noisy(), torch.zeros(1, 2), "the task draws new inputs of a sample at each step"),
    ],
)
def test_runs_without_the_row(task: Task, output: Tensor | tuple[Tensor, ...], why: str | None) -> None:
    controls = SimpleNamespace(of_row=lambda _name: None)
    run: Any = SimpleNamespace(task=task, example_output=output, params=SimpleNamespace(controls=controls))
    assert EqualHead("equal_head", run).left_out() == why
