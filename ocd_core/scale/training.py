"""Training of the scale network on the norms of training Δ (Eq. 8).

Dims: N samples, B samples of a batch.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ocd_core.codes.condition import ConditionEncoder
from ocd_core.errors import UserError
from ocd_core.progress import Progress
from ocd_core.rng import derive_seed, torch_generator
from ocd_core.samples import Condition
from ocd_core.scale.losses import LOSSES, above_zero, median_abs_log_ratio, scale_metrics
from ocd_core.scale.network import ScaleNetwork
from ocd_core.scale.params import ScaleParams
from ocd_core.training.loop import Row, Settings, optimise


@dataclass(frozen=True)
class ScaleTraining:
    """network: the one with the best validation loss. curve: one row per validation, starting with the initial network.

    metrics: plain numbers, on validation.
    """

    network: ScaleNetwork
    curve: list[Row]
    metrics: dict[str, float]


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

    ρ = 0 (overfitting moved nothing) is replaced by the smallest positive training ρ: Eq. 8 divides by ρ. The network
    with the best validation loss is kept, including the starting point of the training on `params.loss`.

    Args:
        progress: called after each update with the number of updates done, including those of the warm start.
        on_row: called with each row of the curve: update, loss, val_loss, val_median_abs_log_ratio, lr, gradient_norm.

    Raises:
        UserError: there are no samples, every ρ is 0, a ρ is not finite, or the loss is no longer a number.
    """
    _refuse_impossible(rho_N, val_rho_N)
    rho = above_zero(rho_N)
    data = (rho, cond, val_rho_N.float().clamp_min(float(rho.min())), val_cond)
    network = _fresh_network(rho, cond, params.width, seed).to(device)
    done = _warm_start(network, data, params, seed, progress)
    curve: list[Row] = []

    def add(row: Row) -> None:
        curve.append({**row, "update": row["update"] + done})
        if on_row is not None:
            on_row(curve[-1])

    def advance(updates: int, text: str) -> None:
        if progress is not None:
            progress(done + updates, text)

    settings = Settings(params.updates, params.lr, params.validate_every, params.patience, keep_start=True)
    objective = _Objective(network, *data, params, seed)
    found = optimise(network, objective, settings, seed, "scale network", advance, add)
    held_out = scale_metrics(network.estimate(val_cond).cpu(), val_rho_N)
    metrics = {
        "val_loss": found.best_loss,
        "best_update": float(done + found.best_update),
        "updates": float(done + found.updates),
        "training_zero_rho": float((rho_N == 0).sum()),
        # an undefined number, such as the rank correlation of one sample, is absent
        **{f"val_{k}": v for k, v in held_out.items() if not math.isnan(v)},
    }
    return ScaleTraining(network, curve, metrics)


def _refuse_impossible(rho_N: Tensor, val_rho_N: Tensor) -> None:
    for name, some in (("training", rho_N), ("validation", val_rho_N)):
        if len(some) == 0:
            raise UserError(f"there are no {name} samples to train the scale network on")
        if not torch.isfinite(some).all():
            raise UserError(f"the ρ of some {name} samples are not finite: lower overfit.lr and overfit again")
    if not (rho_N > 0).any():
        raise UserError("every training ρ is 0: overfitting moved no weight, so there is no scale to learn")


def _fresh_network(rho_N: Tensor, cond: Condition, width: int, seed: int) -> ScaleNetwork:
    """A network that gives the geometric mean of ρ, where both losses have a slope: Eq. 8 is flat if ρ̂ is too small."""
    with torch.random.fork_rng([]):  # initial weights from the seed, independent of torch's global generator
        torch.manual_seed(derive_seed(seed, "scale weights"))
        network = ScaleNetwork(ConditionEncoder.from_condition(cond, width))
    nn.init.zeros_(network.last.weight)
    nn.init.constant_(network.last.bias, float(rho_N.log().mean()))
    return network


_Data = tuple[Tensor, Condition, Tensor, Condition]  # ρ and I(x) of training, of validation


def _warm_start(network: ScaleNetwork, data: _Data, params: ScaleParams, seed: int, progress: Progress | None) -> int:
    """Train first on the squared error of ln ρ if the params ask for it; return the number of updates."""
    warm = params.warm_start
    if not warm.updates:
        return 0
    on_log = params.model_copy(update={"loss": "log_mse"})
    objective = _Objective(network, *data, on_log, derive_seed(seed, "warm start"))
    settings = Settings(warm.updates, warm.lr, params.validate_every, params.patience)
    return optimise(network, objective, settings, seed, "scale network's warm start", progress).updates


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
            "val_median_abs_log_ratio": median_abs_log_ratio(predicted_N, self.val_rho),
        }
