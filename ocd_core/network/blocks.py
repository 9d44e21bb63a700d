"""Outputs of a network, a block of a sample's elements at a time, so that activations stay in the processor's cache.

A network says by an attribute `independent_elements = True` that along the first axis after the samples, its inputs,
everything between and its outputs are elements that do not depend on one another, such as the rays of a view.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from ocd_core.network.activations import count_values
from ocd_core.network.cut import Cut, CutModel
from ocd_core.network.first_inputs import near
from ocd_core.samples import Tensors, concatenate

_BLOCK_BYTES = 2**22  # of the largest activations, or the layer's inputs or outputs: about what a core has for itself


@torch.no_grad()
def network_outputs(network: nn.Module, inputs: Sequence[Tensor]) -> Tensors:
    """f(x) of a network as a whole, (N, ...), in blocks if the elements are independent.

    That is also tried with two elements; a network of which it is not true runs as a whole.
    """
    count = _network_blocks(network, inputs)
    if count == 1 or not _elements_apart(network, inputs):
        output: Tensors = network(*inputs)
        return output
    return _of_blocks(network, inputs, count)


def _network_blocks(network: nn.Module, inputs: Sequence[Tensor]) -> int:
    if not getattr(network, "independent_elements", False) or any(x.dim() < 2 or not x.is_cpu for x in inputs):
        return 1
    samples, elements = inputs[0].shape[:2]
    if any(x.shape[1] != elements for x in inputs):
        return 1
    _, largest = count_values(network, [x[:1, :1] for x in inputs])
    return _in_cache(samples * elements * largest * inputs[0].itemsize, elements)


def _elements_apart(network: nn.Module, inputs: Sequence[Tensor]) -> bool:
    two = [x[:1, :2] for x in inputs]
    return near(_of_blocks(network, two, 2), network(*two))


def _of_blocks(network: nn.Module, inputs: Sequence[Tensor], count: int) -> Tensors:
    blocks = zip(*(x.tensor_split(count, 1) for x in inputs), strict=True)
    return concatenate([network(*block) for block in blocks], 1)


@torch.no_grad()
def outputs_in_blocks(model: CutModel, cut: Cut, delta_NOI: Tensor) -> Tensors:
    """f(x; θ + Δ), (N, ...): `model.forward` without the activation, in blocks if the elements are independent."""
    count = _blocks(model, cut)
    if count == 1 or not independent(model, cut, delta_NOI):
        return model.forward(cut, delta_NOI)[1]
    return _joined(model, cut, delta_NOI, count)


@torch.no_grad()
def independent(model: CutModel, cut: Cut, delta_NOI: Tensor) -> bool:
    """Whether each element of the samples may be answered alone.

    The network says so, and for the first samples both halves of the elements, answered apart, are compared with the
    whole; a network of which it is not true runs as a whole.
    """
    if model.divides is False or not _divisible(cut):
        return False
    if model.divides is None:
        model.divides = near(_joined(model, cut, delta_NOI, 2), model.forward(cut, delta_NOI)[1])
    return model.divides


def _joined(model: CutModel, cut: Cut, delta_NOI: Tensor, count: int) -> Tensors:
    return concatenate([model.forward(block, delta_NOI)[1] for block in divide(cut, count)], 1)


def _blocks(model: CutModel, cut: Cut) -> int:
    """In how many blocks the activations stay in the cache; 1 on a GPU."""
    if model.device.type != "cpu":
        return 1
    size = cut.x_NPI.shape[0] * cut.x_NPI.shape[1] * max(model.weight_OI.shape) * model.dtype.itemsize
    return _in_cache(size, cut.layer_input.shape[1])


def _in_cache(size: int, elements: int) -> int:
    """Of how many blocks each holds at most `_BLOCK_BYTES` of `size` bytes, as far as single elements do."""
    return max(1, min(math.ceil(size / _BLOCK_BYTES), elements))


def _divisible(cut: Cut) -> bool:
    """Whether the layer sees several elements of each sample, and all that the tail reads is theirs."""
    if cut.layer_input.dim() < 3 or any(part.positions != slice(None) for part in cut.parts):
        return False
    elements, (positions, width) = cut.layer_input.shape[1], cut.x_NPI.shape[1:]
    return (
        elements > 1
        and cut.layer_input.shape[-1] == width  # a linear layer's
        and positions % elements == 0
        and all(part.shape[0] == elements for part in cut.parts)
        and all(x.dim() > 1 and x.shape[1] == elements for x in cut.context)
    )


def divide(cut: Cut, count: int) -> Iterator[Cut]:
    """The cut in `count` nearly equal blocks of elements."""
    elements = cut.layer_input.shape[1]
    positions = cut.x_NPI.shape[1] // elements
    for block in torch.arange(elements).tensor_split(count):
        start, end = int(block[0]), int(block[-1]) + 1
        yield Cut(
            cut.x_NPI[:, start * positions : end * positions],
            cut.layer_input[:, start:end],
            tuple(replace(part, shape=(end - start, *part.shape[1:])) for part in cut.parts),
            tuple(x[:, start:end] for x in cut.context),
        )
