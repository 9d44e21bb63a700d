import math

import pytest
import torch

from ocd_core.codes.representations.dense import Dense
from ocd_core.codes.representations.factored import Factored
from ocd_core.diffusion.draw import draw
from ocd_core.diffusion.sampling_params import SamplingParams
from ocd_core.diffusion.schedules import make_schedule
from ocd_core.diffusion.training import DenoisingLoss, other_rows, train_diffusion
from ocd_core.errors import UserError
from ocd_core.samples import Condition
from tests.support.arrays import condition, unit_codes
from tests.support.params import denoiser_params, diffusion_params

ROWS = 24


def train(codes=None, cond=None, val=8, representation=None, seed=0, device="cpu", **kwargs):
    keys = ("progress", "on_row", "work_dir", "checkpoint_every", "metrics")
    rest = {k: kwargs.pop(k) for k in keys if k in kwargs}
    representation = representation or Factored(6, 7, True)
    codes = (
        unit_codes(ROWS, math.prod(representation.shape)).view(-1, *representation.shape) if codes is None else codes
    )
    cond = condition(len(codes)) if cond is None else cond
    held = slice(0, val)
    return train_diffusion(
        codes,
        cond,
        codes[held],
        cond.select(held),
        diffusion_params(**kwargs),
        representation,
        seed,
        device=device,
        **rest,
    )


def test_the_loss_is_eq_7_by_hand():
    """Each loss and prediction type against a loop over samples in float64."""
    codes, cond = unit_codes(10, 6), condition(10)
    for kind in ("epsilon", "x0", "v"):
        for loss in ("mse", "norm", "min_snr"):
            model = train(
                codes, cond, schedule="released", prediction=kind, loss=loss, updates=1, batch_size=5, timesteps=30
            ).model
            objective = DenoisingLoss(model, codes, cond, codes, cond, seed=11)
            rows, t, epsilon = objective.draw(7)
            bars = make_schedule("released", 30).alphas_bar
            losses = []
            for n in range(5):
                bar = float(bars[t[n]])
                a, s = math.sqrt(bar), math.sqrt(1 - bar)
                x0, eps = codes[rows[n]].double(), epsilon[n].double()
                omega = (a * x0 + s * eps).float()
                output = model.predict(omega[None], t[n : n + 1], model.embed(cond.select(rows[n : n + 1])))[0].double()
                gap = output - {"epsilon": eps, "x0": x0, "v": a * eps - s * x0}[kind]
                if loss == "norm":
                    losses.append(gap.norm().item())
                else:
                    snr = bar / (1 - bar)
                    weight = min(snr, 5.0) / {"epsilon": snr, "x0": 1.0, "v": snr + 1}[kind]
                    losses.append(gap.square().mean().item() * (weight if loss == "min_snr" else 1.0))
            assert objective.loss(7, 0, 1).item() == pytest.approx(sum(losses) / 5, rel=1e-4)
            parts = sum(objective.loss(7, p, 3).item() for p in range(3))
            assert parts == pytest.approx(sum(losses) / 5, rel=1e-4)


@pytest.mark.parametrize("loss", ["mse", "norm"])
def test_errors_count_by_each_rows_metric(loss):
    """Against a loop over the rows of the batch and over those of validation."""
    codes, cond = unit_codes(10, 6), condition(10)
    half = torch.randn(2, 10, 6, 6, generator=torch.Generator().manual_seed(2))
    metrics = tuple(half @ half.transpose(2, 3))
    values = {"loss": loss, "metric": "gauss_newton", "updates": 1, "batch_size": 5, "timesteps": 30}
    found = train(codes, cond, val=10, metrics=metrics, **values)
    objective = DenoisingLoss(found.model, codes, cond, codes, cond, seed=11, metrics=metrics)
    rows, t, epsilon = objective.draw(7)

    def error(row: int, at: torch.Tensor, noise: torch.Tensor, metric: torch.Tensor) -> float:
        bar = float(found.model.schedule.alphas_bar[at])
        omega = math.sqrt(bar) * codes[row] + math.sqrt(1 - bar) * noise
        output = found.model.predict(omega[None], at[None], found.model.embed(cond.select(slice(row, row + 1))))[0]
        gap = (output - codes[row]).double().detach()
        square = float(gap @ metric[row].double() @ gap)
        return square**0.5 if loss == "norm" else square / 6

    wanted = sum(error(int(rows[n]), t[n], epsilon[n], metrics[0]) for n in range(5)) / 5
    assert objective.loss(7, 0, 1).item() == pytest.approx(wanted, rel=1e-4)
    held = [(int(at) % 10, objective.val_t[at], noise) for part, noises in objective._held_out()
            for at, noise in zip(part, noises, strict=True)]  # fmt: skip
    mean = sum(error(row, at, noise, metrics[1]) for row, at, noise in held) / len(held)
    with torch.no_grad():
        assert objective.validate()["val_loss"] == pytest.approx(mean, rel=1e-4)
    assert objective.with_other_conditions().metrics is metrics
    alone = train(codes, cond, val=10, loss=loss, updates=1, batch_size=5, timesteps=30)
    assert alone.metrics["val_loss"] != found.metrics["val_loss"]


def test_the_metric_counts_in_float32_under_autocast():
    """A difference of two large eigenvalues' parts, against float64."""
    codes, cond = unit_codes(4, 6), condition(4)
    half = torch.randn(4, 6, 6, generator=torch.Generator().manual_seed(2))
    metric = half @ half.transpose(1, 2)
    model = train(updates=1, batch_size=5).model
    objective = DenoisingLoss(model, codes, cond, codes, cond, seed=1)
    noisy = objective.add_noise(codes, torch.tensor([1, 2, 3, 4]), torch.randn_like(codes))
    output = torch.randn(4, 6, generator=torch.Generator().manual_seed(3))
    plain = objective.per_sample(noisy, output, metric)
    with torch.autocast("cpu", torch.bfloat16):
        found = objective.per_sample(noisy, output, metric)
    gap = (output - codes).double()
    wanted = torch.stack([g @ m.double() @ g for g, m in zip(gap, metric, strict=True)]) / 6
    assert torch.equal(found, plain)
    torch.testing.assert_close(found.double(), wanted, rtol=1e-5, atol=0)


def test_batches_are_drawn_by_update_and_seed_and_cover_all_timesteps():
    model = train(updates=1, batch_size=400, timesteps=20).model
    codes, cond = unit_codes(ROWS, 6), condition(ROWS)
    objective = DenoisingLoss(model, codes, cond, codes, cond, seed=1)
    rows, t, epsilon = objective.draw(5)
    assert (int(t.min()), int(t.max())) == (1, 20)
    assert set(rows.tolist()) == set(range(ROWS))
    assert abs(float(epsilon.mean())) < 0.1
    assert float(epsilon.std()) == pytest.approx(1.0, abs=0.05)
    again = DenoisingLoss(model, codes, cond, codes, cond, seed=1)
    assert all(torch.equal(a, b) for a, b in zip(again.draw(5), (rows, t, epsilon), strict=True))
    assert not torch.equal(objective.draw(6)[2], epsilon)
    assert not torch.equal(DenoisingLoss(model, codes, cond, codes, cond, seed=2).draw(5)[2], epsilon)
    counts = torch.bincount(objective.val_t, minlength=21)[1:]
    assert counts.max() - counts.min() <= 1  # validation sees each timestep equally often


def weights(found):
    return torch.cat([p.flatten() for p in found.model.parameters()])


def test_runs_repeat_bit_for_bit_whatever_the_global_generator_holds():
    torch.manual_seed(1)
    first = train(denoiser=denoiser_params(dropout=0.2))
    torch.manual_seed(2)
    second = train(denoiser=denoiser_params(dropout=0.2))
    assert torch.equal(weights(first), weights(second))
    assert first.curve == second.curve
    assert not torch.equal(weights(first), weights(train(denoiser=denoiser_params(dropout=0.2), seed=1)))


def test_accumulation_does_not_change_the_result():
    whole, parts = (train(updates=10, validate_every=2, accumulate=n) for n in (1, 3))
    torch.testing.assert_close(weights(whole), weights(parts), rtol=1e-3, atol=1e-5)
    for row, other in zip(whole.curve, parts.curve, strict=True):
        assert other == pytest.approx(row, rel=1e-3)


def test_the_best_validated_average_is_kept_and_training_stops_at_a_plateau():
    found = train(updates=400, validate_every=5, patience=3, lr=0.2, ema=0.0, clip=100.0)
    losses = [row["val_loss"] for row in found.curve]
    best = min(range(len(losses)), key=losses.__getitem__)
    assert len(losses) == best + 1 + 3
    assert found.metrics["val_loss"] == losses[best]
    assert found.metrics["updates"] == 5 * len(losses) < 400
    codes, cond = unit_codes(ROWS, 6), condition(ROWS)
    held = slice(0, 8)
    objective = DenoisingLoss(found.model, codes, cond, codes[held], cond.select(held), 0)
    with torch.no_grad():
        assert objective.validate()["val_loss"] == pytest.approx(losses[best], rel=1e-6)


def test_the_condition_is_used():
    """Two groups of opposite codes: only I(x) tells which; a draw for the other group's I(x) is of that group."""
    n = 40
    cond = condition(n)
    sign = torch.where(cond.base_output[:, :1] > 0, 1.0, -1.0)
    codes = sign * unit_codes(1, 6).expand(n, 6)
    found = train(codes, cond, updates=300, lr=3e-3, batch_size=64)
    assert found.metrics["val_loss_permuted"] > 3 * found.metrics["val_loss"]
    sampling = SamplingParams(sampler="ddim", steps=5, eta=0.0, renormalise=True)
    drawn = draw(found.model, cond, torch.arange(n), 0, 0, sampling, n)
    assert torch.cosine_similarity(drawn, codes).median() > 0.9


def test_the_permuted_loss_is_that_of_other_samples_conditions():
    """By hand: each validation sample's I(x) is another's, everything else is the same."""
    codes, cond = unit_codes(ROWS, 6), condition(ROWS)
    found = train(codes, cond, updates=5)
    other = other_rows(8, 0)
    assert sorted(other.tolist()) == list(range(8))
    assert not (other == torch.arange(8)).any()
    objective = DenoisingLoss(found.model, codes, cond, codes[:8], cond.select(slice(8)), 0)
    objective.val_cond = Condition(*(torch.stack([part[i] for i in other]) for part in cond.parts()))
    with torch.no_grad():
        assert objective.validate()["val_loss"] == found.metrics["val_loss_permuted"]
    assert found.metrics["val_loss_permuted"] != found.metrics["val_loss"]
    assert "val_loss_permuted" not in train(codes, cond, val=1, updates=5).metrics


def test_progress_and_rows_are_reported():
    seen, rows = [], []
    found = train(updates=7, validate_every=3, progress=lambda *x: seen.append(x), on_row=rows.append)
    assert [done for done, _ in seen] == list(range(1, 8))
    assert "best val loss" in seen[-1][1]
    assert [r["update"] for r in rows] == [3, 6, 7]
    assert rows == found.curve
    assert set(rows[0]) == {"update", "loss", "val_loss", "val_epsilon_mse", "val_x0_mse", "lr", "gradient_norm"}
    assert found.metrics["training_samples"] == ROWS


def test_a_loss_that_is_no_number_is_refused_with_its_update():
    with pytest.raises(UserError, match=r"loss of the diffusion became (nan|inf) at update \d+: lower its lr"):
        train(unit_codes(ROWS, 6) * 1e30)


def test_bad_codes_are_refused():
    codes = unit_codes(ROWS, 6)
    codes[3, 2] = float("nan")
    with pytest.raises(UserError, match="Δ of some training samples are not finite"):
        train(codes)
    with pytest.raises(UserError, match="no validation samples with Δ ≠ 0"):
        train(val=0)


def test_matrices_with_a_unet_train():
    found = train(
        representation=Dense(5, 6, True),
        updates=20,
        validate_every=20,
        batch_size=8,
        lr=2e-3,
        timesteps=10,
        denoiser=denoiser_params(name="unet", width=16, depth=1, multipliers=[1, 1]),
    )
    assert found.curve[-1]["val_loss"] < 1.3
    assert found.model.shape == (5, 6)
