"""Adapt a network to unlabelled batches by minimising the entropy of its predictions (Tent, Wang et al., ICLR 2021).

As in the official implementation, only the scales and shifts of normalisation layers move, by Adam on the mean entropy
of a batch, and batch normalisation uses the batch's own statistics. Unlike there, dropout stays off, and a batch is
answered after its last update, not before it: with k iterations, each answer has k updates behind it.

Dims: N samples, C classes.
"""

import copy
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ocd_core.samples import Tensors

_BATCH_NORM = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)
_NORMALISATION = (*_BATCH_NORM, nn.LayerNorm, nn.GroupNorm)
_BETAS = (0.9, 0.999)


@dataclass(frozen=True)
class Moved:
    """The names of the parameters that adaptation moves: those of normalisation layers, or biases."""

    names: tuple[str, ...]
    of_normalisation: bool


def moved_parameters(network: nn.Module) -> Moved:
    """The trainable parameters of the normalisation layers; all trainable biases if there are none."""
    trainable = {name: parameter for name, parameter in network.named_parameters() if parameter.requires_grad}
    layers = [module for module in network.modules() if isinstance(module, _NORMALISATION)]
    inside = {id(parameter) for layer in layers for parameter in layer.parameters()}
    names = tuple(name for name, parameter in trainable.items() if id(parameter) in inside)
    if names:
        return Moved(names, of_normalisation=True)
    return Moved(tuple(name for name in trainable if "bias" in name.split(".")[-1]), of_normalisation=False)


def mean_entropy(log_probabilities_NC: Tensor) -> Tensor:
    """The mean over samples of -Σ_c p_c ln p_c, a scalar."""
    return -(log_probabilities_NC.exp() * log_probabilities_NC).sum(-1).mean()


class Adaptation:
    """A copy of a network that adapts to batch after batch; the original does not change.

    Batch normalisation whose parameters are all frozen keeps its running statistics.

    Args:
        network: any device; names: the parameters that move (`moved_parameters`), at least one.
        log_probabilities: of the classes, (N, C), from the network's output.
        lr: of Adam.
    """

    def __init__(
        self, network: nn.Module, names: Collection[str], log_probabilities: Callable[[Tensors], Tensor], lr: float
    ) -> None:
        self._network = copy.deepcopy(network).eval()
        for name, parameter in self._network.named_parameters():
            # convolutions of a cut model have their channels innermost, with which a backward pass takes longer
            parameter.data = parameter.data.contiguous()
            parameter.requires_grad_(name in names)
        for module in self._network.modules():
            if isinstance(module, _BATCH_NORM) and _uses_the_batch(module):
                module.running_mean = module.running_var = None
        self._parameters = [p for p in self._network.parameters() if p.requires_grad]
        self._start = [p.detach().clone() for p in self._parameters]
        self._log_probabilities, self._lr = log_probabilities, lr
        self.reset()

    @torch.no_grad()
    def reset(self) -> None:
        """Return to the network's own parameters, with a new optimiser."""
        for parameter, start in zip(self._parameters, self._start, strict=True):
            parameter.copy_(start)
        self._optimizer = torch.optim.Adam(self._parameters, lr=self._lr, betas=_BETAS)

    def update(self, inputs: Sequence[Tensor]) -> None:
        """Take a step on the mean entropy of a batch."""
        self._optimizer.zero_grad(set_to_none=True)
        with torch.enable_grad():
            mean_entropy(self._log_probabilities(self._network(*inputs))).backward()  # type: ignore[no-untyped-call]
        self._optimizer.step()

    @torch.no_grad()
    def output(self, inputs: Sequence[Tensor]) -> Tensors:
        """The output of the network as it is now, (N, ...)."""
        output: Tensors = self._network(*inputs)
        return output


def _uses_the_batch(layer: nn.Module) -> bool:
    own = [parameter.requires_grad for parameter in layer.parameters()]
    return not own or any(own)
