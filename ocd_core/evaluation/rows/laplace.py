"""`laplace`: a Gaussian over the weights of the base network's last layer, from the curvature of the loss around them.

The last-layer Laplace approximation (Daxberger et al., 2021) with the Kronecker-factored generalised Gauss–Newton
matrix: it gives a distribution of weights, as OCD does, without a second network and without Δ. The precision of the
last layer's weights and bias, as a matrix in (outputs, features with a 1), is

    Σ_n h_n h_nᵀ ⊗ Λ_n + λ ≈ N A ⊗ G + λ,   A = mean of h hᵀ,   G = mean of Λ,

where Λ is the curvature of the loss in the outputs: diag(p) − p pᵀ of classes, 1/σ² of numbers with a Gaussian
likelihood. If Λ is the same for all samples, as for numbers, nothing is approximated: for a linear network this is the
exact posterior. The precision λ of the prior is chosen on validation by the likelihood of its labels, and so is σ².

Dims: N samples, K draws, C outputs, F features of the last layer (with the 1).
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Annotated, Any, ClassVar

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from ocd_core.errors import UserError
from ocd_core.evaluation.context import Fitting
from ocd_core.evaluation.noise import POINTS
from ocd_core.evaluation.row import CombinedRow, Fit, FittedRow, Saved
from ocd_core.evaluation.shared_pass import SharedPass
from ocd_core.files import is_shortage
from ocd_core.network.whole import output_with_layers
from ocd_core.rng import sample_normal
from ocd_core.samples import Batch, SplitName, Tensors, flat, only, rows_at_once, spread_rows, whole_split
from ocd_core.strict import Positive, PositiveInt, StrictModel

_SHOWN = 16  # samples that show which layer is the last one
_REACHES = (-100.0, -0.01, 0.01, 100.0)  # beyond a clamp, within a threshold; a single output has one sign at a time


class LaplaceParams(StrictModel):
    """`controls.laplace`."""

    precisions: Annotated[list[Positive], Field(min_length=1)]  # λ of the prior; the best on val is kept
    draws: PositiveInt  # of the weights, for the mean probability of each class; numbers have `POINTS`


@dataclass(frozen=True)
class Posterior:
    """The eigenvectors and eigenvalues of N A and G, and λ; float64.

    features_FF, outputs_CC: eigenvectors in columns. a_F, g_C: eigenvalues.
    """

    features_FF: Tensor
    a_F: Tensor
    outputs_CC: Tensor
    g_C: Tensor
    precision: Tensor

    @classmethod
    def of(cls, total_FF: Tensor, curvature_CC: Tensor, precision: float = 1.0) -> "Posterior":
        """The posterior from N A = Σ_n h hᵀ and G."""
        a_F, features_FF = torch.linalg.eigh(total_FF)
        g_C, outputs_CC = torch.linalg.eigh(curvature_CC)
        return cls(features_FF, a_F.clamp_min(0), outputs_CC, g_C.clamp_min(0), total_FF.new_tensor(precision))

    def deviations(self, h_NF: Tensor) -> Tensor:
        """The standard deviation of the outputs along each eigenvector of G, where they are independent, (N, C).

        The covariance of the outputs is V diag(s²) Vᵀ with s²_j = Σ_i (Uᵀh)²_i / (a_i g_j + λ).
        """
        variance_FC = 1 / (self.a_F[:, None] * self.g_C + self.precision)
        return ((h_NF.double() @ self.features_FF).square() @ variance_FC).sqrt()

    def covariance(self, h_NF: Tensor) -> Tensor:
        """The covariance of the outputs, float64 (N, C, C)."""
        s_NC = self.deviations(h_NF)
        return (self.outputs_CC * s_NC.square()[:, None, :]) @ self.outputs_CC.T

    def draws(self, output_NC: Tensor, h_NF: Tensor, noise_NKC: Tensor) -> Tensor:
        """Outputs under drawn weights from standard normal noise, (K, N, C), in the dtype of `output_NC`."""
        shift_NKC = (noise_NKC.to(self.a_F) * self.deviations(h_NF)[:, None, :]) @ self.outputs_CC.T
        return output_NC + shift_NKC.transpose(0, 1).to(output_NC)


class Laplace(CombinedRow, FittedRow):
    """Classes: the mean probabilities of drawn weights. Numbers: the base's, with draws as their distribution."""

    Params = LaplaceParams
    quick: ClassVar[Mapping[str, Any]] = {"precisions": [1.0, 10.0], "draws": 5}
    params: LaplaceParams
    title = "last-layer Laplace"
    posterior: Posterior
    variance: float  # σ²; 0 of classes

    def left_out(self) -> str | None:
        """The outputs must be those of a linear layer, and the likelihood one of classes or of numbers like them."""
        context = self.context
        network, some = context.predictor.model.network, self._some
        if self._layer is None:
            return "the outputs of the base network are not those of a linear layer"
        if context.has_classes:
            plain = isinstance(some.target, Tensor) and some.target.dtype == torch.int64 and some.target.dim() == 1
            return None if plain else "the target is not one class"
        if not any(m.sees == "draws" for m in context.task.metrics):
            return "no metric of the task measures a distribution of numbers"
        if flat(network(*some.inputs)).shape != flat(some.target).shape:
            return "outputs and targets have different numbers of values"
        return None

    @cached_property
    def _some(self) -> Batch:
        """Training samples that show which layer is the last one."""
        split, device = self.context.split("train"), self.context.device
        count = rows_at_once(split, min(_SHOWN, self.context.task.evaluation_batch))
        return split.batch(spread_rows(len(split), count)).to(device)

    @cached_property
    def _layer(self) -> nn.Linear | None:
        return last_layer(self.context.predictor.model.network, self._some.inputs)

    def _features(self, inputs: Sequence[Tensor]) -> tuple[Tensors, Tensor]:
        assert self._layer is not None
        return outputs_and_features(self.context.predictor.model.network, self._layer, inputs)

    def fit(self, fitting: Fitting) -> Fit:
        """Sum the curvature over train; choose λ, and estimate σ² from the base's errors, on val."""
        self.variance, val = 0.0, list(self._passes(fitting, "val"))
        if not self.context.has_classes:
            self.variance = float(torch.cat([output - target for output, _, target in val]).square().mean())
            if not self.variance:
                raise UserError("laplace: the base network has no errors on val, so there is no noise to estimate")
        total_FF, curvature_CC, count = torch.zeros(()).double(), torch.zeros(()).double(), 0
        for output_NC, h_NF, _ in self._passes(fitting, "train"):
            total_FF = total_FF + h_NF.T @ h_NF
            curvature_CC = curvature_CC + self._curvature(output_NC).sum(0)
            count += len(output_NC)
        posterior = Posterior.of(total_FF, curvature_CC / count)
        tried = {p: replace(posterior, precision=torch.tensor(p).double()) for p in self.params.precisions}
        losses, start = dict.fromkeys(tried, 0.0), 0
        for output_NC, h_NF, target in val:
            ids = torch.arange(start, start + len(h_NF))
            for precision, posterior in tried.items():
                losses[precision] += float(self._losses(posterior, output_NC, h_NF, target, ids).sum())
            start += len(h_NF)
        best = min(losses, key=lambda precision: losses[precision])
        self.posterior = tried[best]
        return Fit({"precision": best, "val_loss": losses[best] / start, "variance": self.variance})

    @torch.no_grad()
    def _passes(self, fitting: Fitting, name: SplitName) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Outputs (N, C), features (N, F) and targets of a split, float64, on the CPU."""
        split = fitting.split(name)
        for rows in torch.split(whole_split(split), rows_at_once(split, fitting.task.evaluation_batch)):
            batch = split.batch(rows)
            output, h_NF = self._features(batch.to(fitting.device).inputs)
            target = only(batch.target) if self.context.has_classes else flat(batch.target).double()
            yield flat(output).double().cpu(), h_NF.double().cpu(), target

    def _curvature(self, output_NC: Tensor) -> Tensor:
        """Λ of each sample, (N, C, C)."""
        if self.variance:
            return (torch.eye(output_NC.shape[1], dtype=torch.float64) / self.variance).expand(len(output_NC), -1, -1)
        log_p_NC = self.context.task.log_probabilities(output_NC)
        assert log_p_NC is not None
        p_NC = log_p_NC.exp()
        return torch.diag_embed(p_NC) - p_NC[:, :, None] * p_NC[:, None, :]

    def _noise(self, sample_id: Tensor, outputs: int) -> Tensor:
        draws = POINTS if self.variance else self.params.draws
        return sample_normal((draws, outputs), sample_id.tolist(), self.context.seed, "laplace")

    def _losses(
        self, posterior: Posterior, output_NC: Tensor, h_NF: Tensor, target: Tensor, sample_id: Tensor
    ) -> Tensor:
        """The negative log-likelihood of each sample's label, in nats, (N,)."""
        if self.variance:
            own_CC = self.variance * torch.eye(output_NC.shape[1], dtype=torch.float64)
            normal = torch.distributions.MultivariateNormal(output_NC, posterior.covariance(h_NF) + own_CC)
            log_likelihood_N: Tensor = normal.log_prob(target)  # type: ignore[no-untyped-call]
            return -log_likelihood_N
        drawn_KNC = posterior.draws(output_NC, h_NF, self._noise(sample_id, output_NC.shape[1]))
        return self.context.task.loss(self.context.task.combine(drawn_KNC), target)

    def tensors(self) -> Mapping[str, Tensor]:
        """The posterior."""
        return dict(vars(self.posterior))

    def config(self) -> dict[str, Any]:
        """σ²."""
        return {"variance": self.variance}

    def load(self, saved: Saved) -> None:
        """The posterior and σ²."""
        self.posterior = Posterior(**{name: value.to(self.context.device) for name, value in saved.tensors.items()})
        self.variance = float(saved.config["variance"])

    def outputs(self, shared: SharedPass) -> Tensors:
        """Classes: `Task.combine` of the drawn outputs. Numbers: the outputs at the mean weights, the base's."""
        return shared.base.output if self.variance else super().outputs(shared)

    def distribution(self, shared: SharedPass) -> Tensors:
        """The drawn outputs, (K, N, ...); of numbers, with noise of variance σ²."""

        def draw() -> Tensor:
            base, ids = only(shared.base.output), shared.batch.sample_id
            h_NF = self._features(shared.on_device.inputs)[1]
            noise_NKC = self._noise(ids, flat(base).shape[1])
            drawn_KNC = self.posterior.draws(flat(base), h_NF, noise_NKC)
            if self.variance:
                own_NKC = sample_normal(noise_NKC.shape[1:], ids.tolist(), self.context.seed, "laplace noise")
                drawn_KNC = drawn_KNC + self.variance**0.5 * own_NKC.transpose(0, 1).to(drawn_KNC)
            return drawn_KNC.reshape(len(drawn_KNC), *base.shape)

        return shared.once((Laplace, id(self)), draw)


def last_layer(network: nn.Module, inputs: Sequence[Tensor]) -> nn.Linear | None:
    """The linear layer whose outputs, perhaps in another shape, are those of the network; None if there is none.

    Equal values do not show it: after the layer, a ReLU does not change the positive ones. So other values of both
    signs are put in the place of the layer's outputs, and the network has to give them.
    """
    called: list[tuple[nn.Linear, torch.Size]] = []
    linear = [module for module in network.modules() if isinstance(module, nn.Linear)]
    hooks = [m.register_forward_hook(lambda layer, _args, out: called.append((layer, out.shape))) for m in linear]
    try:
        network(*inputs)
    finally:
        for hook in hooks:
            hook.remove()
    if not called or called[-1][1][:-1] != (len(inputs[0]),):
        return None  # it sees several vectors of a sample, say
    layer, shape = called[-1]
    if [one for one, _ in called].count(layer) > 1:
        return None  # what is put in would also change what the layer reads
    tried = (torch.linspace(-reach, reach, shape.numel()).view(shape) for reach in _REACHES)
    return layer if all(_passes_on(network, layer, inputs, values) for values in tried) else None


@torch.no_grad()
def _passes_on(network: nn.Module, layer: nn.Linear, inputs: Sequence[Tensor], values: Tensor) -> bool:
    """Whether the network's output is what its last layer gives, here `values`, perhaps in another shape."""
    put = values.to(layer.weight)
    try:
        output = output_with_layers(network, [layer], [put.clone()], inputs)  # it may change them in place
    except Exception as error:  # whatever the user's own code raises for such values, which it then does read
        if is_shortage(error):
            raise
        return False
    return isinstance(output, Tensor) and torch.equal(output.flatten(), put.flatten())


@torch.no_grad()
def outputs_and_features(network: nn.Module, layer: nn.Linear, inputs: Sequence[Tensor]) -> tuple[Tensors, Tensor]:
    """The network's outputs, and what its last layer reads, with a 1 if that has a bias, (N, F).

    Raises:
        UserError: the outputs are not those of the layer.
    """
    kept: list[tuple[Tensor, Tensor]] = []
    hook = layer.register_forward_hook(lambda _layer, args, out: kept.append((args[0], out.clone())))
    try:
        output: Tensors = network(*inputs)
    finally:
        hook.remove()
    read, own = kept[-1] if kept else (torch.zeros(()), torch.zeros(()))
    if not torch.equal(flat(output).flatten(), own.flatten()):
        raise UserError(
            "laplace: the outputs of the base network are not those of its last linear layer for every sample, or are "
            "NaN: leave laplace out of controls.fit and evaluate.rows"
        )
    return output, read if layer.bias is None else F.pad(read, (0, 1), value=1.0)


ROW = Laplace
