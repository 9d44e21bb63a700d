"""The scale network ρ(x, I(x)) (section 3.2), with encoders of its own.

With SGD ρ spans six decades: the network's output is exp(·), so that every scale is as near as any other.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ocd_core.codes.condition import ConditionEncoder
from ocd_core.errors import UserError
from ocd_core.progress import Progress
from ocd_core.rng import derive_seed, torch_generator
from ocd_core.samples import Condition
from ocd_core.scale.params import ScaleParams
from ocd_core.training.loop import Row, Settings, optimise
from ocd_core.weights import BaseId, described_by, load_network, load_strictly, save_network

KIND = "scale"
EQ8_EPSILON = 1e-4  # inside the logarithm of Eq. 8: errors below 1 % of ρ count alike, and none is -infinity


class ScaleNetwork(nn.Module):
    """ρ(x, I(x)): the encoders' sum, two hidden layers, exp(·). Positive float32 (N,)."""

    def __init__(self, encoder: ConditionEncoder) -> None:
        super().__init__()
        self.encoder = encoder
        width = encoder.dim
        self.hidden = nn.Linear(width, width)
        self.last = nn.Linear(width, 1)

    def forward(self, cond: Condition) -> Tensor:
        """ρ of N samples, (N,)."""
        h_NW = F.silu(self.hidden(F.silu(self.encoder(cond))))
        rho_N: Tensor = self.last(h_NW).squeeze(1).float().exp()
        return rho_N

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.last.weight.device

    @torch.inference_mode()
    def estimate(self, cond: Condition, batch: int = 4096) -> Tensor:
        """`forward` in eval mode and in batches, on the network's device."""
        self.eval()
        parts = [self(cond.select(slice(i, i + batch)).to(self.device)) for i in range(0, len(cond), batch)]
        return torch.cat(parts) if parts else torch.empty(0, device=self.device)

    def save(self, folder: Path, params: ScaleParams, base: BaseId | None = None) -> None:
        """Write `model.safetensors` and `config.json`, with the params that made it and the base network it is for."""
        config = {"params": params.model_dump(mode="json"), "condition_sizes": list(self.encoder.sizes)}
        save_network(folder, KIND, self.state_dict(), config, base)

    @classmethod
    def load(cls, folder: Path) -> "ScaleNetwork":
        """What `save` wrote, in eval mode, on the CPU.

        Raises:
            UserError: missing, damaged or foreign files, or tensors that do not match the config.
        """
        state, config = load_network(folder, KIND)
        with described_by(folder):
            width = ScaleParams.model_validate(config["params"]).width
            self = cls(ConditionEncoder(config["condition_sizes"], width))
        load_strictly(self, state, folder)
        return self.eval()


@dataclass(frozen=True)
class ScaleTraining:
    """network: as of the best validation. curve: a row a validation. metrics: plain numbers, on validation."""

    network: ScaleNetwork
    curve: list[Row]
    metrics: dict[str, float]


def above_zero(rho_N: Tensor) -> Tensor:
    """ρ in float32 with 0, where overfitting moved nothing, taken as the smallest positive one: Eq. 8 divides by ρ."""
    return rho_N.float().clamp_min(max(float(rho_N[rho_N > 0].min()), torch.finfo(torch.float32).tiny))


def eq8_loss(predicted_N: Tensor, rho_N: Tensor) -> Tensor:
    """10 log10(|ρ̂ - ρ|² / ρ² + ε) of each sample (Eq. 8), ρ > 0, in decibels; (N,)."""
    ratio_N = ((predicted_N - rho_N) / rho_N).abs()
    far_N = ratio_N > 1e9  # from 1.8e19 on the square is infinite in float32; here ε is below its rounding
    near = torch.log10(torch.where(far_N, 1.0, ratio_N) ** 2 + EQ8_EPSILON)
    return 10 * torch.where(far_N, 2 * torch.log10(torch.where(far_N, ratio_N, 1.0)), near)


def log_mse_loss(predicted_N: Tensor, rho_N: Tensor) -> Tensor:
    """(ln ρ̂ - ln ρ)² of each sample, ρ > 0; (N,)."""
    return (predicted_N / rho_N).log() ** 2


LOSSES = {"eq8": eq8_loss, "log_mse": log_mse_loss}


def train_scale(
    cond: Condition,
    rho_N: Tensor,
    val_cond: Condition,
    val_rho_N: Tensor,
    params: ScaleParams,
    seed: int,
    progress: Progress | None = None,
    on_row: Callable[[Row], None] | None = None,
    device: torch.device | str = "cpu",
) -> ScaleTraining:
    """Train the scale network on ρ = ‖Δ‖ of the training samples (Eq. 8).

    ρ = 0, where overfitting moved nothing, is taken as the smallest positive training ρ: Eq. 8 divides by ρ. The
    network of the best validation is kept, that with which the loss of the params starts among them.

    Args:
        progress: called with the count of updates done after each, those of the warm start first.
        on_row: called with each row of the curve: update, loss, val_loss, val_median_abs_log_ratio, lr, gradient_norm.

    Raises:
        UserError: no samples, every ρ = 0, a ρ that is not finite, or a loss that stops being a number.
    """
    for name, some in (("training", rho_N), ("validation", val_rho_N)):
        if len(some) == 0:
            raise UserError(f"there are no {name} samples to train the scale network on")
        if not torch.isfinite(some).all():
            raise UserError(f"the ρ of some {name} samples are not finite: lower overfit.lr and overfit again")
    if not (rho_N > 0).any():
        raise UserError("every training ρ is 0: overfitting moved no weight, so there is no scale to learn")
    rho = above_zero(rho_N)
    val_rho = val_rho_N.float().clamp_min(float(rho.min()))
    with torch.random.fork_rng([]):  # initial weights from the seed, whatever torch's global generator holds
        torch.manual_seed(derive_seed(seed, "scale weights"))
        network = ScaleNetwork(ConditionEncoder.from_condition(cond, params.width))
    nn.init.zeros_(network.last.weight)
    # from the geometric mean, where neither loss is flat: Eq. 8 has no slope for a ρ̂ that is far too small
    nn.init.constant_(network.last.bias, float(rho.log().mean()))
    network.to(device)
    data, warm = (rho, cond, val_rho, val_cond), params.warm_start
    done = 0
    if warm.updates:
        first = _Objective(
            network, *data, params.model_copy(update={"loss": "log_mse"}), derive_seed(seed, "warm start")
        )
        settings = Settings(warm.updates, warm.lr, params.validate_every, params.patience)
        done = optimise(network, first, settings, seed, "scale network's warm start", progress).updates
    objective = _Objective(network, *data, params, seed)
    start = {name: value.clone() for name, value in network.state_dict().items()}
    curve: list[Row] = [{"update": float(done), **objective.validate()}]
    if on_row is not None:
        on_row(curve[0])

    def add(row: Row) -> None:
        curve.append({**row, "update": row["update"] + done})
        if on_row is not None:
            on_row(curve[-1])

    def advance(updates: int, text: str) -> None:
        if progress is not None:
            progress(done + updates, text)

    settings = Settings(params.updates, params.lr, params.validate_every, params.patience)
    found = optimise(network, objective, settings, seed, "scale network", advance, add)
    best = min(curve, key=lambda row: row["val_loss"])
    if best is curve[0]:
        network.load_state_dict(start)
    held_out = scale_metrics(network.estimate(val_cond).cpu(), val_rho_N)
    metrics = {
        "val_loss": best["val_loss"],
        "best_update": best["update"],
        "updates": float(done + found.updates),
        "training_zero_rho": float((rho_N == 0).sum()),
        # the rank correlation of one sample, say, is not defined; such a number is absent
        **{f"val_{k}": v for k, v in held_out.items() if not math.isnan(v)},
    }
    return ScaleTraining(network, curve, metrics)


class _Objective:
    """The loss of the params on batches drawn by (seed, update), and on all of the validation set."""

    def __init__(
        self,
        network: ScaleNetwork,
        rho_N: Tensor,
        cond: Condition,
        val_rho_N: Tensor,
        val_cond: Condition,
        params: ScaleParams,
        seed: int,
    ) -> None:
        self.network, self.params, self.seed = network, params, seed
        self.rho, self.cond, self.val_rho, self.val_cond = rho_N, cond, val_rho_N, val_cond
        self.per_sample = LOSSES[params.loss]

    def loss(self, update: int, part: int, parts: int) -> Tensor:
        generator = torch_generator(self.seed, "scale update", update)
        rows = torch.randint(len(self.rho), (self.params.batch_size,), generator=generator)
        rows = rows.tensor_split(parts)[part]
        device = self.network.device
        predicted_B = self.network(self.cond.select(rows).to(device))
        return self.per_sample(predicted_B, self.rho[rows].to(device)).sum() / self.params.batch_size

    def validate(self) -> Row:
        predicted_N = self.network.estimate(self.val_cond).cpu()
        return {
            "val_loss": float(self.per_sample(predicted_N, self.val_rho).mean()),
            "val_median_abs_log_ratio": _median_abs_log_ratio(predicted_N, self.val_rho),
        }


def scale_metrics(predicted_N: Tensor, rho_N: Tensor) -> dict[str, float]:
    """How good ρ̂ is on held-out samples with ρ > 0 (others are left out).

    median_abs_log_ratio: of |ln(ρ̂ / ρ)|, 0.69 is a factor of two. rank_correlation: Spearman's. eq8_db: the mean loss
    of Eq. 8, 0 for ρ̂ = 0 and below where ρ̂ is of use. NaN where it is not defined: no samples, ρ̂ = 0 (of the
    ratio), fewer than two samples or equal values (of the correlation).
    """
    from scipy.stats import rankdata

    kept = rho_N > 0
    predicted_N, rho_N = predicted_N[kept].double().cpu(), rho_N[kept].double().cpu()
    if len(rho_N) == 0:
        return dict.fromkeys(("median_abs_log_ratio", "rank_correlation", "eq8_db"), math.nan)
    ranks = np.stack([rankdata(predicted_N.numpy()), rankdata(rho_N.numpy())])
    defined = bool((ranks.std(axis=1) > 0).all())
    ratio = _median_abs_log_ratio(predicted_N, rho_N)
    return {
        "median_abs_log_ratio": ratio if math.isfinite(ratio) else math.nan,
        "rank_correlation": float(np.corrcoef(ranks)[0, 1]) if defined else math.nan,
        "eq8_db": float(eq8_loss(predicted_N, rho_N).mean()),
    }


def _median_abs_log_ratio(predicted_N: Tensor, rho_N: Tensor) -> float:
    ratios = (predicted_N.double() / rho_N.double()).log().abs()
    return float(np.median(ratios.numpy()))
