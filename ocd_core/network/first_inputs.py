"""A network on its first two samples: what it must do to be cut at a layer, and what its own answers are.

Everything that is computed per sample rests on it: a network that mixes its samples, draws random numbers in eval mode,
or changes its inputs would have weight changes that depend on the size of the batches.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ocd_core.errors import UserError
from ocd_core.files import is_shortage
from ocd_core.network.layers import find_layers
from ocd_core.samples import Tensors, as_tuple, map_tensors

_MOVED = 0.1  # size of the tried Δ, as a part of the weight's


def first_two(inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """Two different samples, or one twice: an axis of length one could hide a mistake."""
    return tuple(torch.cat([x[:2], x[:1]])[:2].clone() for x in inputs)


def copied(model: nn.Module) -> nn.Module:
    """A copy of the model.

    Raises:
        UserError: it cannot be copied.
    """
    try:
        return copy.deepcopy(model)
    except Exception as error:  # whatever the module's own parts raise
        if is_shortage(error):
            raise
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"the model cannot be copied ({type(error).__name__}: {reason}); a tensor that its forward keeps must be "
            "detached"
        ) from error


@dataclass(frozen=True)
class FirstAnswers:
    """What a network, run as it is, answers on its first samples.

    inputs: of two samples. both: f(x), (2, ...). moved: f(x; θ + Δ) of the second alone, (1, ...). delta_1OI: that Δ, a
    small random one; None, for Δ = 0, if the layer's weight is not a parameter that could be set.
    """

    inputs: tuple[Tensor, ...]
    both: Tensors
    moved: Tensors
    delta_1OI: Tensor | None

    @classmethod
    @torch.no_grad()
    def of(cls, network: nn.Module, layer: str, weight_OI: Tensor, inputs: tuple[Tensor, ...]) -> "FirstAnswers":
        """Run the network, and a copy that holds the moved weight.

        Args:
            layer: its name, or those of several. weight_OI: its matrix, or theirs, stacked.

        Raises:
            UserError: see `plain_output`.
        """
        both = plain_output(network, inputs)
        noise_OI = torch.randn(weight_OI.shape, generator=torch.Generator().manual_seed(0)).to(weight_OI)
        delta_OI = _MOVED * weight_OI.square().mean().sqrt() * noise_OI
        moved = _moved_output(network, layer, delta_OI, [x[1:].clone() for x in inputs])
        if moved is None:
            return cls(inputs, both, map_tensors(lambda x: x[1:], both), None)
        return cls(inputs, both, moved, delta_OI[None])

    def are(self, both: Tensors, moved: Tensors, dtype: torch.dtype) -> bool:
        """Whether answers of the same network in another precision are these but for rounding.

        Raises:
            UserError: they are not in that precision.
        """
        for x in as_tuple(both):
            if x.is_floating_point() and x.dtype != dtype:
                raise UserError(
                    f"the model's output is {x.dtype} for weights and inputs in {dtype}; let it not cast, or set "
                    "overfit.precision and evaluate.precision to float32"
                )
        return all(
            near(found, map_tensors(lambda x: x.to(dtype) if x.is_floating_point() else x, wanted))
            for found, wanted in ((both, self.both), (moved, self.moved))
        )


@torch.no_grad()
def plain_output(network: nn.Module, inputs: Sequence[Tensor]) -> Tensors:
    """f(x) of two samples, (2, ...), by the network as it is.

    Raises:
        UserError: the output is no tensors with the samples in the first axis; the network changes its inputs in place,
            mixes the samples of a batch, or gives another output at a second call.
    """
    given = _copied(inputs)
    output: Any = network(*given)
    if not isinstance(output, Tensor | tuple) or not all(isinstance(x, Tensor) for x in as_tuple(output)):
        raise UserError(f"the model must return a tensor or a tuple of tensors, not a {type(output).__name__}")
    if any(x._version for x in given):
        raise UserError(
            "the model changes its input in place, so that a second pass would see another one; let it work on a copy, "
            "such as x = x - 0.5 in place of x -= 0.5"
        )
    alone: Tensors = network(*(x[1:].clone() for x in inputs))
    for whole, one in zip(as_tuple(output), as_tuple(alone), strict=True):
        _check_shapes(tuple(whole.shape), tuple(one.shape))
    if not near(alone, map_tensors(lambda x: x[1:], output)):
        if near(network(*_copied(inputs)), output):
            raise UserError(
                "the model mixes the samples of a batch (a sample alone gives another output): let it normalise within "
                "a sample, not over the batch"
            )
        raise UserError("the model in eval mode gives another output at a second call; let it draw no random numbers")
    return output


def _check_shapes(whole: tuple[int, ...], one: tuple[int, ...]) -> None:
    if whole[:1] != (2,):
        raise UserError(
            f"the model's output has shape {whole} for 2 samples: the model must keep the samples in the first axis"
        )
    if one != (1, *whole[1:]):
        raise UserError(
            f"the model's output has shape {one} for one sample and {whole} for two; let it squeeze only the axes that "
            "are meant, such as x.squeeze(-1)"
        )


def _moved_output(network: nn.Module, layer: str, delta_OI: Tensor, inputs: Sequence[Tensor]) -> Tensors | None:
    """None if the weight is no parameter that could be set, but computed from others."""
    moved = copy.deepcopy(network)
    weights = [one._parameters.get("weight") for one in find_layers(moved, layer)]
    start = 0
    for weight in weights:
        if weight is None:
            return None
        weight.add_(delta_OI[start : start + len(weight)].view_as(weight))
        start += len(weight)
    found: Tensors = moved(*inputs)
    return found


def near(found: Tensors, wanted: Tensors) -> bool:
    """Whether outputs are of equal shape, and equal but for rounding."""
    return all(_near(f, w) for f, w in zip(as_tuple(found), as_tuple(wanted), strict=True))


def _near(found: Tensor, wanted: Tensor) -> bool:
    if found.shape != wanted.shape or not wanted.numel():
        return found.shape == wanted.shape
    largest = float(wanted.abs().where(wanted.isfinite(), 0).max())
    return torch.allclose(found, wanted, rtol=1e-3, atol=1e-4 * largest, equal_nan=True)


def _copied(inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
    return tuple(x.clone() for x in inputs)
