"""Overfitting every sample by itself, in one layer (Eq. 1; Alg. 1, lines 1-5), for many samples at once.

No loop over samples: the gradient of a sample's own loss with respect to its own weights is u ⊗ x, with u the
gradient at the layer's output and x the layer's input, so one backward pass through the tail for the whole
batch gives every sample's gradient, and the rest is batched matrix products. The tail is in float64 (see
`ocd_core.layers`), Δ is kept in float32.

Dims: N rows, S steps, P positions, O out_features, I in_features.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ocd_core.config import OverfitParams
from ocd_core.errors import UserError
from ocd_core.layers import Cut, SplitModel

# loss of each sample by itself: (output (N, ...), target (N, ...)) -> (N,)
SampleLoss = Callable[[Tensor, Tensor], Tensor]
# the inputs of a step, cut at the layer, and their targets
StepInputs = Callable[[int], tuple[Cut, Tensor]]

_ADAM_BETAS = (0.9, 0.999)  # torch.optim.Adam's defaults
_ADAM_EPS = 1e-8


@dataclass(frozen=True)
class Overfitted:
    """What overfitting a batch of rows gives.

    delta_NOI: θ_s - θ, float32, or None for the factored layout; grad_u_NSO: the gradient at the layer's output at
    each step, float64, or None for the dense one. rho_N = ‖Δ‖ (Frobenius), loss_before_N under θ, loss_after_NS
    after each step: float64. Where a step draws its own inputs, the loss after a step is on the next step's inputs.
    """

    delta_NOI: Tensor | None
    grad_u_NSO: Tensor | None
    rho_N: Tensor
    loss_before_N: Tensor
    loss_after_NS: Tensor


def overfit(
    split: SplitModel, inputs: StepInputs, loss: SampleLoss, params: OverfitParams, *, inputs_change: bool = False
) -> Overfitted:
    """Overfit a batch of rows by `params.steps` gradient steps each on its own loss (Eq. 1).

    The loss is one sample's, never divided by a batch size. With `until_converged`, a row stops as soon as a step
    lowers its loss by less than `tolerance` of it; its Δ then stays.

    Args:
        split: the base network cut at the selected layer.
        inputs: step -> the cut inputs and targets; asked for steps 0 .. S (the last for the final loss alone).
        loss: per-sample loss, differentiable, in float64 for float64 outputs.
        params: the group `overfit`.
        inputs_change: whether steps see different inputs (a view's rays); otherwise only step 0 counts.

    Raises:
        UserError: the factored layout where it is not exact, or a loss that is not finite.
    """
    cut = inputs(0)[0]
    check_layout(split, cut, params, inputs_change)
    if params.optimizer == "sgd" and cut.x_NPI.shape[1] == 1 and not inputs_change:
        return _sgd_rank_one(split, inputs, loss, params)
    return _general(split, inputs, loss, params)


def check_layout(split: SplitModel, cut: Cut, params: OverfitParams, inputs_change: bool) -> None:
    """Refuse the factored layout where Δ is not a function of the gradient factors and i_L alone."""
    if params.layout != "factored":
        return
    if cut.x_NPI.shape[1] != 1:
        raise UserError(
            f"overfit.layout: factored is not exact for layer {split.layer_name!r}, which sees {cut.x_NPI.shape[1]} "
            "positions a sample (a convolution or a batch of points); use dense"
        )
    if inputs_change:
        raise UserError("overfit.layout: factored is not exact where each step sees other inputs; use dense")
    if params.optimizer == "adam" and params.until_converged:
        raise UserError(
            "overfit.layout: factored is not exact for adam with until_converged, whose number of steps differs by "
            "sample; use dense"
        )


def _tail_gradient(
    split: SplitModel, z_NPO: Tensor, cut: Cut, target: Tensor, loss: SampleLoss
) -> tuple[Tensor, Tensor]:
    """Each sample's loss (N,) and its gradient at the layer's output (N, P, O)."""
    z_NPO = z_NPO.detach().requires_grad_(True)
    with torch.enable_grad():
        loss_N = loss(split.tail(z_NPO, cut)[1], target)
        (u_NPO,) = torch.autograd.grad(loss_N.sum(), z_NPO)
    return _finite(loss_N.detach()), u_NPO


@torch.no_grad()
def _tail_loss(split: SplitModel, z_NPO: Tensor, cut: Cut, target: Tensor, loss: SampleLoss) -> Tensor:
    return _finite(loss(split.tail(z_NPO, cut)[1], target))


def _finite(loss_N: Tensor) -> Tensor:
    bad = int((~torch.isfinite(loss_N)).sum())
    if bad:
        raise UserError(
            f"the loss of {bad} of {len(loss_N)} samples is not finite while overfitting; lower overfit.lr, or look "
            "for NaN in the data"
        )
    return loss_N


class _Convergence:
    """Which rows still move."""

    def __init__(self, loss_N: Tensor, params: OverfitParams) -> None:
        self._params = params
        self._last = loss_N
        self.moving = torch.ones_like(loss_N)

    def after_step(self, loss_N: Tensor) -> None:
        if self._params.until_converged:
            self.moving = self.moving * ((self._last - loss_N) > self._params.tolerance * self._last)
        self._last = loss_N


def _sgd_rank_one(split: SplitModel, inputs: StepInputs, loss: SampleLoss, params: OverfitParams) -> Overfitted:
    """SGD, one position: Δ = -lr (Σ_k u_k) ⊗ x, and a step moves the output by -lr ‖x‖² u; no matrix is formed."""
    cut, target = inputs(0)
    z_NPO = split.layer_output(cut)
    squared_N11 = cut.x_NPI.double().square().sum(2, keepdim=True)
    loss_N, u_NPO = _tail_gradient(split, z_NPO, cut, target, loss)
    state = _Convergence(loss_N, params)
    before, after, grads = loss_N, [], []
    for step in range(params.steps):
        u_NPO = u_NPO * state.moving[:, None, None]
        grads.append(u_NPO[:, 0])
        z_NPO = z_NPO - params.lr * squared_N11 * u_NPO
        if step + 1 < params.steps:
            loss_N, u_NPO = _tail_gradient(split, z_NPO, cut, target, loss)
        else:
            loss_N = _tail_loss(split, z_NPO, cut, target, loss)
        state.after_step(loss_N)
        after.append(loss_N)
    grad_u_NSO = torch.stack(grads, 1)
    total_NO = -params.lr * grad_u_NSO.sum(1)
    rho_N = total_NO.norm(dim=1) * squared_N11[:, 0, 0].sqrt()
    dense = params.layout == "dense"
    return Overfitted(
        delta_NOI=total_NO.float()[:, :, None] * cut.x_NPI if dense else None,
        grad_u_NSO=None if dense else grad_u_NSO,
        rho_N=rho_N,
        loss_before_N=before,
        loss_after_NS=torch.stack(after, 1),
    )


def _general(split: SplitModel, inputs: StepInputs, loss: SampleLoss, params: OverfitParams) -> Overfitted:
    """Any optimiser and any number of positions, with Δ as a matrix a row."""
    cut, target = inputs(0)
    rows, (out_features, in_features) = len(cut), split.weight_OI.shape
    delta_NOI = torch.zeros(rows, out_features, in_features, dtype=torch.float64, device=split.device)
    update = _Adam(delta_NOI, params.lr) if params.optimizer == "adam" else _Sgd(params.lr)
    before: Tensor | None = None
    state: _Convergence | None = None
    after, grads = [], []
    for step in range(params.steps):
        loss_N, u_NPO = _tail_gradient(split, split.layer_output(cut, delta_NOI), cut, target, loss)
        if state is None:
            before, state = loss_N, _Convergence(loss_N, params)
        else:
            state.after_step(loss_N)
            after.append(loss_N)
        if params.layout == "factored":
            grads.append(u_NPO[:, 0])
        grad_NOI = u_NPO.transpose(1, 2) @ cut.x_NPI.double()
        delta_NOI = update(delta_NOI, grad_NOI, state.moving[:, None, None])
        cut, target = inputs(step + 1)
    after.append(_tail_loss(split, split.layer_output(cut, delta_NOI), cut, target, loss))
    assert before is not None
    dense = params.layout == "dense"
    return Overfitted(
        delta_NOI=delta_NOI.float() if dense else None,
        grad_u_NSO=None if dense else torch.stack(grads, 1),
        rho_N=delta_NOI.flatten(1).norm(dim=1),
        loss_before_N=before,
        loss_after_NS=torch.stack(after, 1),
    )


class _Sgd:
    def __init__(self, lr: float) -> None:
        self._lr = lr

    def __call__(self, delta: Tensor, grad: Tensor, moving: Tensor) -> Tensor:
        return delta - self._lr * moving * grad


class _Adam:
    """torch.optim.Adam with its defaults, a state a row."""

    def __init__(self, delta: Tensor, lr: float) -> None:
        self._lr = lr
        self._mean = torch.zeros_like(delta)
        self._square = torch.zeros_like(delta)
        self._step = 0

    def __call__(self, delta: Tensor, grad: Tensor, moving: Tensor) -> Tensor:
        self._step += 1
        (b1, b2), k = _ADAM_BETAS, self._step
        self._mean.lerp_(grad, 1 - b1)
        self._square.mul_(b2).addcmul_(grad, grad, value=1 - b2)
        denominator = (self._square / (1 - b2**k)).sqrt_().add_(_ADAM_EPS)
        return delta - (self._lr / (1 - b1**k)) * moving * self._mean / denominator
