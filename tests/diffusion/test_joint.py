"""The task's loss beside the diffusion's: a sum, in training, in early stopping and in checkpoints."""

import pytest
import torch
import torch.nn.functional as F

from ocd_core.diffusion import training
from ocd_core.diffusion.joint import JointLoss, TaskSide
from ocd_core.diffusion.training import train_diffusion
from ocd_core.errors import UserError
from ocd_core.rng import derive_seed, sample_normal, torch_generator
from ocd_core.training.loop import ALONE
from ocd_core.training.processes import Processes
from tests.diffusion.test_tuning import (
    BASE,
    SAMPLES,
    TASK,
    SeedsOfInputs,
    T,
    answer,
    coded,
    model,
    representation,
    rows_of_memory,
    rows_of_updates,
)
from tests.support.params import denoiser_params, diffusion_params

SIDE = TaskSide(TASK, BASE, *SAMPLES, mean_rho=0.7, fingerprint="side")


class Fixed:
    """An objective with known numbers."""

    def __init__(self, value: float) -> None:
        self.value = value

    def loss(self, update: int, part: int, parts: int) -> torch.Tensor:
        return torch.tensor(self.value * (update + 1) / parts)

    def validate(self) -> dict[str, float]:
        return {"val_loss": self.value, "val_x0_mse": 9.0}


def test_the_sum_is_trained_and_decides() -> None:
    joint = JointLoss(Fixed(2.0), Fixed(3.0), 10.0, torch.device("cpu"))
    assert sum(float(joint.loss(1, part, 2)) for part in range(2)) == pytest.approx(2 * (2 + 30))
    assert joint.validate() == {"val_loss": 32.0, "val_x0_mse": 9.0, "val_delta_loss": 2.0, "val_task_loss": 3.0}


def train(side=SIDE, work_dir=None, progress=None, name: str = "pca", processes=ALONE, **changes):
    net = model(name)
    values = {
        "timesteps": T, "embedding": 8, "denoiser": denoiser_params(width=8, depth=1), "updates": 30, "lr": 1e-2,
        "validate_every": 10, "batch_size": 8, "accumulate": 2, "ema": 0.5, "task_loss": 5.0, "task_batch": 6,
    }  # fmt: skip
    params = diffusion_params(**{**values, **changes})
    (codes, cond), (val_codes, val_cond) = coded(net, SAMPLES[0]), coded(net, SAMPLES[1])
    return train_diffusion(
        codes, cond, val_codes, val_cond, params, representation(name), 0, progress,
        work_dir=work_dir, checkpoint_every=10, processes=processes, side=side,
    )  # fmt: skip


def task_loss(found) -> float:
    """On the validation split."""
    return SIDE.loss(found.model, 0, Processes()).validate()["val_loss"]


def test_training_lowers_the_tasks_loss_and_reports_both() -> None:
    found, alone = train(), train(side=None, task_loss=0.0)
    assert task_loss(found) < task_loss(alone)
    assert found.metrics["val_task_loss"] == pytest.approx(task_loss(found), rel=1e-5)
    best = min(found.curve, key=lambda row: row["val_loss"])
    assert best["update"] == found.metrics["best_update"]
    assert best["val_loss"] == pytest.approx(best["val_delta_loss"] + 5 * best["val_task_loss"])
    assert found.metrics["val_loss"] == best["val_delta_loss"]
    assert found.metrics["task_flops"] == 30 * found.metrics["task_flops"] / found.metrics["updates"] > 0
    assert not {"val_task_loss", "task_flops"} & set(alone.metrics)


def test_the_operations_are_counted_on_no_more_samples_than_a_part_has(monkeypatch) -> None:
    whole = train(accumulate=1).metrics["task_flops"]
    rows = rows_of_updates(monkeypatch)
    assert train(accumulate=3).metrics["task_flops"] == pytest.approx(whole, rel=0.15)
    assert set(rows) == {2}


def test_inputs_are_those_of_the_runs_seed() -> None:
    task = SeedsOfInputs()
    moved = TaskSide(task, BASE, *SAMPLES, mean_rho=0.7, fingerprint="").loss(model(), 7, Processes())
    plain = SIDE.loss(model(), 7, Processes())
    assert moved.loss(3, 0, 1).detach() == plain.loss(3, 0, 1).detach()
    assert moved.validate() == plain.validate()
    assert task.seeds == {7}


def test_the_memory_is_that_of_both_losses(monkeypatch) -> None:
    rows = rows_of_memory(monkeypatch, training)
    train(updates=1)
    train(updates=1, task_loss=0.0)
    assert rows == [8 + 6, 8]


def test_weight_zero_changes_no_bit_of_the_training() -> None:
    weights = [found.model.state_dict() for found in (train(side=None, task_loss=0.0), train(task_loss=0.0))]
    assert all(torch.equal(a, b) for a, b in zip(weights[0].values(), weights[1].values(), strict=True))


def test_an_interrupted_training_ends_with_the_same_bits(tmp_path) -> None:
    def stop(update: int, _text: str) -> None:
        if update == 17:
            raise InterruptedError

    whole = train()
    with pytest.raises(InterruptedError):
        train(work_dir=tmp_path, progress=stop)
    assert (tmp_path / "checkpoint.pt").exists()
    resumed = train(work_dir=tmp_path)
    assert resumed.curve == whole.curve
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[name]), name


def test_a_batch_of_the_tasks_loss_with_fewer_samples_than_parts_is_refused_by_its_own_name() -> None:
    with pytest.raises(UserError, match=r"^diffusion\.task_batch is 3 .* 4 processes .* or raise task_batch$"):
        train(task_batch=3, accumulate=1, processes=Processes(1, 4))


@pytest.mark.parametrize("name", ["factored", "dense"])
def test_a_direction_is_answered_with_the_mean_rho(name):
    """Loss and gradient against a loop over samples; the model's answer is x0."""
    net, own = model(name), derive_seed(7, "task loss")
    (x, y), batch = (SAMPLES[0].split.x, SAMPLES[0].split.y), net.params.task_batch
    drawn = torch.randint(len(x), (batch,), generator=torch_generator(own, "task loss update", 3)).tolist()
    losses = []
    for place, i in enumerate(drawn):
        (noise,) = sample_normal(net.shape, [place], own, "tuning", 3, 0, 0)
        cond = SAMPLES[0].condition.select(slice(i, i + 1))
        code = net.denoiser(noise[None], net.encoder(cond) + net.time(torch.tensor([T])))[0]
        delta = 0.7 * code / code.norm()
        delta_OI = delta if name == "dense" else torch.outer(delta, x[i] / x[i].norm())
        losses.append(F.cross_entropy(answer(delta_OI, x[i]), y[i : i + 1]))
    expected, found = torch.stack(losses).mean(), SIDE.loss(net, 7, Processes()).loss(3, 0, 1)
    torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    mine, theirs = (torch.autograd.grad(v, list(net.parameters()), allow_unused=True) for v in (found, expected))
    assert sum(g is not None and bool(g.any()) for g in theirs) > 4
    for a, b in zip(mine, theirs, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)
