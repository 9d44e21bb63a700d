"""Overfit each sample separately in all layers (Tab. 1, "All Layers"), for many samples at once.

It is the procedure of `ocd_core.overfit.steps` with all parameters of the network, weights and biases, in place of the
weight of one layer: each sample has a copy of them, which the params' optimiser moves on the sample's own loss.

Dims: N samples, S steps.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from ocd_core.adam import Adam
from ocd_core.network.activations import count_values
from ocd_core.network.per_sample import PerSampleNetwork, Weights
from ocd_core.overfit.params import OverfitParams
from ocd_core.overfit.rules import MATRICES, Sgd
from ocd_core.overfit.steps import Convergence, finite, refuse_infinite
from ocd_core.samples import Batch, SampleLoss

# the inputs of a step in parts, each with its share of the loss: step -> parts
WholeInputs = Callable[[int], Iterable[tuple[Batch, float]]]


@dataclass(frozen=True)
class WholeOverfitted:
    """The parameters θ_s of N samples, with the loss under θ, (N,), and after each step, (N, S).

    If each step draws its own inputs, the loss after a step is on the next step's inputs.
    """

    weights: Weights
    loss_before_N: Tensor
    loss_after_NS: Tensor


def overfit_all_layers(
    network: PerSampleNetwork, inputs: WholeInputs, count: int, loss: SampleLoss, params: OverfitParams
) -> WholeOverfitted:
    """Overfit N samples with `params.steps` gradient steps, each on its own loss.

    With `until_converged`, a sample stops as soon as a step lowers its loss by less than the fraction `tolerance`.

    Args:
        network: the base network; the parameters that differ between samples move.
        inputs: step -> the samples' inputs and targets, on the network's device; called for steps 0 .. S (the last
            only for the final loss).
        count: N.
        loss: per-sample loss, differentiable, in the dtype of the outputs.
        params: the group `overfit`.

    Raises:
        UserError: a loss or a parameter is not finite (parameters in float32).
    """
    weights = network.start(count)
    make = Adam if params.optimizer == "adam" else Sgd
    rules = {name: make(weight, params.lr) for name, weight in weights.items()}
    losses: list[Tensor] = []
    for step in range(params.steps):
        loss_N, gradients = _gradients(network, weights, inputs(step), loss)
        if step == 0:
            state = Convergence(loss_N, params)
        else:
            state.after_step(loss_N)
        losses.append(loss_N)
        for name, rule in rules.items():
            rule(gradients[name], state.moving.view(count, *[1] * (weights[name].dim() - 1)))
    largest = [weight.reshape(count, -1).abs().amax(1) for weight in weights.values()]
    refuse_infinite({"θ": torch.stack(largest, 1)})
    final_N = torch.zeros_like(losses[0])
    for part, share in inputs(params.steps):
        final_N += share * finite(loss(network.outputs(weights, part.inputs), part.target))
    return WholeOverfitted(weights, losses[0], torch.stack([*losses[1:], final_N], 1))


def _gradients(
    network: PerSampleNetwork, weights: Weights, parts: Iterable[tuple[Batch, float]], loss: SampleLoss
) -> tuple[Tensor, Weights]:
    """The loss of each sample, (N,), and its gradient: sums over the parts."""
    loss_N: Tensor | None = None
    total: Weights = {}
    for part, share in parts:
        part_N, found = network.gradients(weights, part.inputs, part.target, loss)
        finite(part_N)
        for name, gradient in found.items():
            total[name] = total[name].add_(gradient, alpha=share) if name in total else gradient.mul_(share)
        loss_N = part_N * share if loss_N is None else loss_N + part_N * share
    assert loss_N is not None
    return loss_N, total


def samples_within(network: PerSampleNetwork, example: Batch, params: OverfitParams) -> int:
    """How many samples fit a working set of `params.memory_mb` (at least 1).

    Args:
        example: what a step sees of one sample, or the largest part of it.
    """
    values, _ = count_values(network.network, network.cast(example.inputs))
    # parameters once more, for outputs in another precision; activations as in `rows_within`
    numbers = (MATRICES[params.optimizer] + 1) * network.size + 3 * values
    size = torch.finfo(network.dtype).bits // 8
    return max(1, int(params.memory_mb * 2**20) // (size * numbers))
