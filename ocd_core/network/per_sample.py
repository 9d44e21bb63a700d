"""A whole network with parameters of its own for each sample: outputs and gradients of many samples at once.

There is no loop over samples: `torch.func` maps the computation of one sample over all of them. A network or a loss
that it cannot follow (a branch that depends on values, an operation without a batching rule) runs sample by sample
instead: the same results, but slower.

Dims: N samples.
"""

import copy
from collections.abc import Callable, Collection, Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value, vmap

from ocd_core.files import Attempt
from ocd_core.samples import SampleLoss, Tensors, in_dtype, map_tensors, one_sample, stack

T = TypeVar("T")
# parameters by name, each (N, *shape)
Weights = dict[str, Tensor]


class PerSampleNetwork:
    """A copy of a network in eval mode, some of whose parameters differ between samples; the rest stays.

    Args:
        network: it keeps the samples in the first axis and does not mix them.
        names: the parameters that each sample has of its own, as in `named_parameters`.
        dtype: of the parameters and the computation.
    """

    def __init__(self, network: nn.Module, names: Collection[str], dtype: torch.dtype) -> None:
        self.network = copy.deepcopy(network).eval().requires_grad_(False).to(dtype)
        self.dtype = dtype
        self.together = True  # whether torch.func can follow, as far as is known
        parameters = dict(self.network.named_parameters())
        self._start = {name: parameters[name].detach() for name in names}

    @property
    def size(self) -> int:
        """The number of values that a sample has of its own."""
        return sum(weight.numel() for weight in self._start.values())

    def start(self, count: int) -> Weights:
        """The network's own parameters for each of N samples, as copies that may be changed in place."""
        return {name: weight.expand(count, *weight.shape).clone() for name, weight in self._start.items()}

    @torch.no_grad()
    def outputs(self, weights: Weights, inputs: Sequence[Tensor]) -> Tensors:
        """f(x_n; θ_n), each (N, ...); weights may have another dtype."""
        weights = {name: weight.to(self.dtype) for name, weight in weights.items()}
        cast = self.cast(inputs)

        def one(weights_n: Weights, inputs_n: tuple[Tensor, ...]) -> Tensors:
            return one_sample(self._call(weights_n, inputs_n), 0)

        def one_by_one() -> Tensors:
            return stack([one(_of(weights, n), _sample(cast, n)) for n in range(len(inputs[0]))])

        return self._run(lambda: vmap(one)(weights, cast), one_by_one)

    def gradients(
        self, weights: Weights, inputs: Sequence[Tensor], target: Tensors, loss: SampleLoss
    ) -> tuple[Tensor, Weights]:
        """The loss of each sample under its own parameters, (N,), and its gradient; 0 for parameters not used."""
        cast = self.cast(inputs)

        def one(weights_n: Weights, inputs_n: tuple[Tensor, ...], target_n: Tensors) -> Tensor:
            return loss(self._call(weights_n, inputs_n), map_tensors(lambda y: y[None], target_n))[0]

        def together() -> tuple[Tensor, Weights]:
            found, loss_N = vmap(grad_and_value(one))(weights, cast, target)
            return loss_N, found

        def one_by_one() -> tuple[Tensor, Weights]:
            losses, found = [], {name: torch.zeros_like(weight) for name, weight in weights.items()}
            for n in range(len(inputs[0])):
                leaves = {name: weight.detach().requires_grad_() for name, weight in _of(weights, n).items()}
                with torch.enable_grad():
                    loss_n = one(leaves, _sample(cast, n), one_sample(target, n))
                    parts = torch.autograd.grad(loss_n, list(leaves.values()), allow_unused=True)
                losses.append(loss_n.detach())
                for name, part in zip(leaves, parts, strict=True):
                    if part is not None:
                        found[name][n] = part
            return torch.stack(losses), found

        return self._run(together, one_by_one)

    def _call(self, weights_n: Weights, inputs_n: tuple[Tensor, ...]) -> Tensors:
        output: Tensors = functional_call(self.network, weights_n, tuple(x[None] for x in inputs_n))
        return output

    def cast(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Inputs in the network's dtype; integers stay."""
        return in_dtype(inputs, self.dtype)

    def _run(self, together: Callable[[], T], one_by_one: Callable[[], T]) -> T:
        if self.together:
            with Attempt():  # a single sample raises the model's own errors again
                return together()
            self.together = False
        return one_by_one()


def _of(weights: Weights, n: int) -> Weights:
    return {name: weight[n] for name, weight in weights.items()}


def _sample(inputs: tuple[Tensor, ...], n: int) -> tuple[Tensor, ...]:
    return tuple(x[n] for x in inputs)
