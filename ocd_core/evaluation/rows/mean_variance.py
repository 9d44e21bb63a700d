"""`mean_variance`: the base network trained further to give a normal distribution (Nix and Weigend, 1994).

A second network of the base's architecture gives the logarithm of the variance. Both are trained together on the
negative log-likelihood, unless the params say otherwise for at most the operations that OCD's training takes.
"""

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ocd_core.evaluation.context import Fitting
from ocd_core.evaluation.noise import POINTS
from ocd_core.evaluation.row import Fit, FittedRow, Saved
from ocd_core.evaluation.shared_pass import SharedPass
from ocd_core.network.training import fit_base, seeded_network
from ocd_core.rng import derive_seed, sample_normal
from ocd_core.samples import Batch, Split, SplitName, Tensors, flat, only
from ocd_core.strict import Positive, PositiveInt, StrictModel
from ocd_core.tasks.base import Metric, Task

_LEAST_LOG_VARIANCE = -14.0


class MeanVarianceParams(StrictModel):
    """`controls.mean_variance`."""

    epochs: PositiveInt | None  # at most; null: as many as cost the same as OCD's training
    patience: PositiveInt  # epochs without a better validation loss before it stops
    lr: Positive


class MeanVarianceNetwork(nn.Module):
    """Two networks with outputs of one shape: the mean, and the logarithm of the variance."""

    def __init__(self, mean: nn.Module, log_variance: nn.Module) -> None:
        super().__init__()
        self.mean, self.log_variance = mean, log_variance

    def forward(self, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        """Both, each (N, ...)."""
        return self.mean(*inputs), self.log_variance(*inputs).clamp_min(_LEAST_LOG_VARIANCE)


class _Likelihood(Task):
    """A task whose network gives distributions, for the usual training; the data is the original task's."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.evaluation_batch = task.evaluation_batch  # type: ignore[misc]

    def prepare(self, dest: Path) -> dict[str, Any]:
        raise NotImplementedError

    def open(self, prepared: Path, split: SplitName) -> Split:
        return self.task.open(prepared, split)

    def build_model(self) -> nn.Module:
        return MeanVarianceNetwork(self.task.build_model(), self.task.build_model())

    def training_batch(self, split: Split, sample_id: Tensor, seed: int, epoch: int) -> Batch:
        return self.task.training_batch(split, sample_id, seed, epoch)

    def loss(self, output: tuple[Tensor, Tensor], target: Tensor) -> Tensor:
        """The negative log-likelihood of each sample in nats, without its constant, (N,)."""
        mean_ND, log_variance_ND = (flat(part) for part in output)
        losses_ND = F.gaussian_nll_loss(mean_ND, flat(target), log_variance_ND.exp(), reduction="none")
        return losses_ND.mean(1)

    @property
    def metrics(self) -> Sequence[Metric]:
        return ()


class MeanVariance(FittedRow):
    """The mean; as a distribution, draws from the normal distribution. In the precision of the tail."""

    Params = MeanVarianceParams
    quick: ClassVar[Mapping[str, Any]] = {"epochs": 1, "patience": 1, "lr": 1e-4}
    params: MeanVarianceParams
    title = "mean and variance"
    network: MeanVarianceNetwork

    @property
    def networks(self) -> int:
        """One for the mean, one for the variance."""
        return 2

    def left_out(self) -> str | None:
        """Outputs must be numbers like the targets, with a metric of distributions, and a network fresh."""
        if not any(m.sees == "draws" for m in self.context.task.metrics):
            return "no metric of the task measures a distribution of numbers"
        first = self.context.split("train").batch(torch.zeros(1, dtype=torch.int64))
        if flat(self.context.example_output).shape != flat(first.target).shape:
            return "outputs and targets have different numbers of values"
        return self.context.not_afresh or self.context.all_frozen

    def fit(self, fitting: Fitting) -> Fit:
        """Train on the run's device, with early stopping."""
        task, seed = _Likelihood(fitting.task), derive_seed(fitting.seed, "mean variance")
        epoch_flops, affordable = fitting.affordable(task)
        epochs = affordable if self.params.epochs is None else self.params.epochs
        chosen = fitting.params.base.shortened(epochs, patience=self.params.patience, lr=self.params.lr)
        start = MeanVarianceNetwork(
            copy.deepcopy(fitting.predictor.model.network).float().cpu(), seeded_network(fitting.task, seed)
        )
        train, val = fitting.split("train"), fitting.split("val")
        found = fit_base(
            task, train, val, chosen, seed, start=start, device=fitting.device, lr_name="controls.mean_variance.lr"
        )
        assert isinstance(found.model, MeanVarianceNetwork)
        self.network = found.model
        used = epoch_flops * int(found.metrics["epochs"])
        return Fit(found.metrics, found.curve, {"allowed": epoch_flops * epochs, "total": used})

    def tensors(self) -> Mapping[str, Tensor]:
        """All weights of both networks."""
        return self.network.state_dict()

    def load(self, saved: Saved) -> None:
        """Load into networks that the task builds."""
        self.network = MeanVarianceNetwork(self.context.task.build_model(), self.context.task.build_model())
        saved.load_into(self.network)
        self.network.to(self.context.device, self.context.predictor.model.dtype)

    def outputs(self, shared: SharedPass) -> Tensors:
        """The mean."""
        return self._both(shared)[0]

    def distribution(self, shared: SharedPass) -> Tensors:
        """`POINTS` draws, (K, N, ...), because they cost nothing; they depend only on the seed and the sample."""
        mean, log_variance = self._both(shared)
        noise_NK = sample_normal(
            (POINTS, *mean.shape[1:]), shared.batch.sample_id.tolist(), self.context.seed, "mean variance"
        )
        return mean + (log_variance / 2).exp() * noise_NK.transpose(0, 1).to(mean)

    def _both(self, shared: SharedPass) -> tuple[Tensor, Tensor]:
        def compute() -> tuple[Tensor, Tensor]:
            mean, log_variance = self.network(*shared.inputs)
            return only(mean), only(log_variance)

        return shared.once((MeanVariance, id(self)), compute)


ROW = MeanVariance
