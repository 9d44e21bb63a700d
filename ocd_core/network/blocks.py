"""Outputs under θ + Δ, a block of a sample's elements at a time, so that activations stay in the processor's cache.

A network says by an attribute `independent_elements = True` that along the first axis after the samples, its inputs,
everything between and its outputs are elements that do not depend on one another, such as the rays of a view.
"""

import math
from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from ocd_core.network.cut import Cut, CutModel, near
from ocd_core.samples import Tensors, concatenate

_BLOCK_BYTES = 2**22  # of the layer's inputs or outputs, whichever are more: about what a core has for itself


@torch.no_grad()
def outputs_in_blocks(model: CutModel, cut: Cut, delta_NOI: Tensor) -> Tensors:
    """f(x; θ + Δ), (N, ...): `model.forward` without the activation, in blocks if the network allows it.

    That it does is compared with the whole for the first samples; a network of which it is not true runs as a whole.
    """
    count = _blocks(model, cut)
    if count == 1:
        return model.forward(cut, delta_NOI)[1]
    found = concatenate([model.forward(block, delta_NOI)[1] for block in divide(cut, count)], 1)
    if model.divides is None:
        whole = model.forward(cut, delta_NOI)[1]
        model.divides = near(found, whole)
        if not model.divides:
            return whole
    return found


def _blocks(model: CutModel, cut: Cut) -> int:
    """In how many blocks to answer; 1 if the samples cannot be divided, or need not."""
    if model.divides is False or model.device.type != "cpu" or model.kind != "linear" or not _divisible(cut):
        return 1
    width = max(model.weight_OI.shape)
    size = cut.x_NPI.shape[0] * cut.x_NPI.shape[1] * width * model.dtype.itemsize
    return min(math.ceil(size / _BLOCK_BYTES), cut.layer_input.shape[1])


def _divisible(cut: Cut) -> bool:
    """Whether the layer sees several elements of each sample, and all that the tail reads is theirs."""
    if cut.layer_input.dim() < 3 or any(part.positions != slice(None) for part in cut.parts):
        return False
    elements = cut.layer_input.shape[1]
    return all(part.shape[0] == elements for part in cut.parts) and all(
        x.dim() > 1 and x.shape[1] == elements for x in cut.context
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
