"""Overfit each sample separately, in one layer (Eq. 1; Alg. 1, lines 1-5), for many samples at once.

There is no loop over samples: the gradient of a sample's own loss with respect to its own weights is u ⊗ x, with u the
gradient at the layer's output and x the layer's input, so one backward pass through the tail for the whole
batch gives every sample's gradient, and the rest is batched matrix products. The tail is in float64 or, if the params
select it, in float32 (see `ocd_core.network.cut`); Δ is kept in float32.

If the layer sees one vector per sample (one position, the same at each step), no matrix is formed while stepping:
see `_one_position`.

Dims: N rows, S steps, P positions, O out_features, I in_features.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ocd_core.adam import Adam
from ocd_core.errors import UserError
from ocd_core.network.cut import Cut, CutModel
from ocd_core.overfit.layout import check_layout
from ocd_core.overfit.params import OverfitParams
from ocd_core.overfit.rules import OuterAdam, RankOneSgd, Sgd
from ocd_core.samples import SampleLoss, Tensors, map_tensors

_LARGEST = torch.finfo(torch.float32).max


@dataclass(frozen=True)
class StepPart:
    """A part of each row's inputs in a step, cut at the layer, with its targets and its share of the row's loss."""

    cut: Cut
    target: Tensors
    weight: float = 1.0


# the inputs of a step: one part, or several that are processed one after the other; their weights add up to 1
StepInputs = Callable[[int], Iterable[StepPart]]


@dataclass(frozen=True)
class Overfitted:
    """The result of overfitting a batch of rows.

    delta_NOI: θ_s - θ, float32, or None for the factored layout; grad_u_NSO: the gradient at the layer's output at
    each step, float64, or None for the dense layout. rho_N = ‖Δ‖ (Frobenius), float64. loss_before_N under θ,
    loss_after_NS after each step, in the tail's precision. If each step draws its own inputs, the loss after a step
    is on the next step's inputs. activation, output: a_L and f_θ(x) of the base network on the inputs of step 0, in
    the tail's precision, (N, ...); None if steps see different inputs.
    """

    delta_NOI: Tensor | None
    grad_u_NSO: Tensor | None
    rho_N: Tensor
    loss_before_N: Tensor
    loss_after_NS: Tensor
    activation: Tensor | None
    output: Tensors | None


def overfit(
    model: CutModel,
    inputs: StepInputs,
    loss: SampleLoss,
    params: OverfitParams,
    *,
    inputs_change: bool = False,
    out_NOI: Tensor | None = None,
) -> Overfitted:
    """Overfit each row of a batch with `params.steps` gradient steps on its own loss (Eq. 1).

    The loss is that of one sample, never divided by a batch size. With `until_converged`, a row stops as soon as a step
    lowers its loss by less than the fraction `tolerance`; its Δ then stays.

    Args:
        model: the base network cut at the selected layer.
        inputs: step -> the cut inputs and targets; called for steps 0 .. S (the last only for the final loss). It is a
            single part if all steps see the same inputs.
        loss: per-sample loss, differentiable, in float64 for float64 outputs.
        params: the group `overfit`.
        inputs_change: whether steps see different inputs (a view's rays); otherwise only step 0 counts.
        out_NOI: the output for Δ of the dense layout, float32, on any device, which saves a copy. It is then the
            result's delta_NOI.

    Raises:
        UserError: the factored layout is not exact, or a loss, Δ or ρ is not finite in float32, in which Δ is kept.
    """
    cut = next(iter(inputs(0))).cut
    check_layout(model, cut, params, inputs_change)
    if one_position(cut, inputs_change):
        return _sound(_one_position(model, inputs, loss, params, out_NOI))
    return _sound(_general(model, inputs, loss, params, out_NOI, inputs_change))


def one_position(cut: Cut, inputs_change: bool) -> bool:
    """Whether each sample's gradients are outer products with one x, so that overfitting needs no matrices."""
    return cut.x_NPI.shape[1] == 1 and not inputs_change


@dataclass(frozen=True)
class _Gradient:
    """loss_N and its gradient u_NPO at the layer's output, with a_L and f(x)."""

    loss_N: Tensor
    u_NPO: Tensor
    activation: Tensor
    output: Tensors


def _tail_gradient(model: CutModel, z_NPO: Tensor, cut: Cut, target: Tensors, loss: SampleLoss) -> _Gradient:
    z_NPO = z_NPO.detach().requires_grad_(True)
    with torch.enable_grad():
        activation, output = model.tail(z_NPO, cut)
        loss_N = loss(output, target)
        (u_NPO,) = torch.autograd.grad(loss_N.sum(), z_NPO)
    return _Gradient(finite(loss_N.detach()), u_NPO, activation.detach(), map_tensors(Tensor.detach, output))


@torch.no_grad()
def _tail_loss(model: CutModel, z_NPO: Tensor, cut: Cut, target: Tensors, loss: SampleLoss) -> Tensor:
    return finite(loss(model.tail(z_NPO, cut)[1], target))


def finite(loss_N: Tensor, when: str = "while overfitting", remedy: str = "lower overfit.lr") -> Tensor:
    """The losses, if they are finite.

    Raises:
        UserError: some are not; `when` and `remedy` are parts of the message.
    """
    bad = int((~torch.isfinite(loss_N)).sum())
    if bad:
        raise UserError(
            f"the loss of {bad} of {len(loss_N)} samples is not finite {when}; {remedy}, or check the data for NaN"
        )
    return loss_N


def _sound(found: Overfitted) -> Overfitted:
    """Refuse what cannot be trained on: with a very large learning rate, Δ may be infinite but the losses finite."""
    refuse_infinite(
        {"Δ": found.delta_NOI, "the gradient": found.grad_u_NSO, "ρ": found.rho_N, "the loss": found.loss_after_NS}
    )
    return found


def refuse_infinite(named: Mapping[str, Tensor | None], remedy: str = "lower overfit.lr or overfit.steps") -> None:
    """Refuse values (N, ...) that are not finite in float32.

    Raises:
        UserError: names the first such value, and the remedy.
    """
    for name, values in named.items():
        if values is not None and not within_float32(values):
            bad = sum(not within_float32(row) for row in values)
            raise UserError(
                f"{name} of {bad} of {len(values)} samples is not finite (in float32) after overfitting; {remedy}"
            )


def within_float32(values: Tensor) -> bool:
    """Whether all values are finite as float32. One pass, no copy."""
    low, high = torch.aminmax(values)  # NaN if there is any, and comparisons with NaN are false
    return bool((low >= -_LARGEST) & (high <= _LARGEST))


class Convergence:
    """Which rows still move: all, or with `until_converged` those whose loss fell enough in each step.

    Args:
        loss_N: under θ.
    """

    def __init__(self, loss_N: Tensor, params: OverfitParams) -> None:
        self._params = params
        self._last = loss_N
        self.moving = torch.ones_like(loss_N)

    def after_step(self, loss_N: Tensor) -> None:
        """Take the loss after the next step."""
        if self._params.until_converged:
            self.moving = self.moving * ((self._last - loss_N) > self._params.tolerance * self._last.abs())
        self._last = loss_N


def _one_position(
    model: CutModel, inputs: StepInputs, loss: SampleLoss, params: OverfitParams, out_NOI: Tensor | None
) -> Overfitted:
    """One position, the same inputs at each step: every gradient is u_k ⊗ x.

    Stepping needs only the layer's output; Δ is formed once, at the end.
    """
    (part,) = inputs(0)
    cut, target = part.cut, part.target
    z_NPO = model.layer_output(cut)
    update = (RankOneSgd if params.optimizer == "sgd" else OuterAdam)(cut.x_NPI[:, 0], params.lr)
    first = now = _tail_gradient(model, z_NPO, cut, target, loss)
    state = Convergence(first.loss_N, params)
    after, grads = [], []
    for step in range(params.steps):
        moving_N1 = state.moving[:, None]
        u_NO = now.u_NPO[:, 0].double() * moving_N1
        if params.layout == "factored":
            grads.append(u_NO)
        z_NPO = z_NPO + update(u_NO, moving_N1)[:, None].to(z_NPO.dtype)
        if step + 1 < params.steps:
            now = _tail_gradient(model, z_NPO, cut, target, loss)
            loss_N = now.loss_N
        else:
            loss_N = _tail_loss(model, z_NPO, cut, target, loss)
        state.after_step(loss_N)
        after.append(loss_N)
    dense = params.layout == "dense"
    if dense and out_NOI is None:
        out_NOI = torch.empty(len(cut), *model.weight_OI.shape, device=model.device)
    return Overfitted(
        delta_NOI=out_NOI if dense else None,
        grad_u_NSO=None if dense else torch.stack(grads, 1),
        rho_N=update.finish(out_NOI if dense else None),
        loss_before_N=first.loss_N,
        loss_after_NS=torch.stack(after, 1),
        activation=first.activation,
        output=first.output,
    )


def _general(
    model: CutModel,
    inputs: StepInputs,
    loss: SampleLoss,
    params: OverfitParams,
    out_NOI: Tensor | None,
    inputs_change: bool,
) -> Overfitted:
    """Any number of positions, and inputs that change: Δ as one matrix per row, in the tail's precision."""
    assert params.layout == "dense"
    out_features, in_features = model.weight_OI.shape
    delta_NOI: Tensor | None = None
    kept: _Gradient | None = None
    losses: list[Tensor] = []
    for step in range(params.steps):
        loss_N, grad_NOI = None, None
        for part in inputs(step):
            now = _tail_gradient(model, model.layer_output(part.cut, delta_NOI), part.cut, part.target, loss)
            if step == 0 and not inputs_change:
                kept = now
            part_NOI = (now.u_NPO.transpose(1, 2) @ part.cut.x_NPI.to(model.dtype)).mul_(part.weight)
            grad_NOI = part_NOI if grad_NOI is None else grad_NOI.add_(part_NOI)
            part_N = now.loss_N * part.weight
            loss_N = part_N if loss_N is None else loss_N + part_N
        assert loss_N is not None
        assert grad_NOI is not None
        if delta_NOI is None:
            delta_NOI = torch.zeros(len(loss_N), out_features, in_features, dtype=model.dtype, device=model.device)
            update = (Adam if params.optimizer == "adam" else Sgd)(delta_NOI, params.lr)
            state = Convergence(loss_N, params)
        else:
            state.after_step(loss_N)
        losses.append(loss_N)
        update(grad_NOI, state.moving[:, None, None])
    assert delta_NOI is not None
    final_N = torch.zeros_like(losses[0])
    for part in inputs(params.steps):
        output_NPO = model.layer_output(part.cut, delta_NOI)
        final_N += part.weight * _tail_loss(model, output_NPO, part.cut, part.target, loss)
    return Overfitted(
        delta_NOI=delta_NOI.float() if out_NOI is None else out_NOI.copy_(delta_NOI),
        grad_u_NSO=None,
        rho_N=torch.linalg.vector_norm(delta_NOI, dim=(1, 2), dtype=torch.float64),
        loss_before_N=losses[0],
        loss_after_NS=torch.stack([*losses[1:], final_N], 1),
        activation=None if kept is None else kept.activation,
        output=None if kept is None else kept.output,
    )
