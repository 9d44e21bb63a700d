"""Layers whose weight is a matrix, by name; several of them may form one matrix.

`head+distillation_head` names two layers that move as one: their weights, stacked along out_features.

Dims: N samples, P positions (1 for a vector input; pixels for a convolution; points of a ray batch),
I in_features (a convolution's C·kh·kw), O out_features.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ocd_core.errors import UserError

MATRIX_LAYERS = (nn.Linear, nn.Conv1d, nn.Conv2d)
_TOGETHER = "+"


def matrix_layers(model: nn.Module) -> dict[str, nn.Module]:
    """The layers whose weight is a matrix (Linear, Conv1d, Conv2d without groups), in the model's order."""
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, MATRIX_LAYERS) and getattr(module, "groups", 1) == 1
    }


def layer_kind(layer: nn.Module) -> str:
    """`linear` or `conv`."""
    return "linear" if isinstance(layer, nn.Linear) else "conv"


def layer_names(name: str) -> tuple[str, ...]:
    """The layers that `name` stands for: one, or those between the plus signs."""
    return tuple(name.split(_TOGETHER))


def find_layers(model: nn.Module, name: str) -> tuple[nn.Module, ...]:
    """The layers that a name stands for, in its order.

    Raises:
        UserError: no such layer, a layer whose weight is not that of a Linear or an ungrouped convolution, or several
            that do not make one matrix.
    """
    names = layer_names(name)
    layers = tuple(_find_layer(model, one) for one in names)
    if len(set(names)) < len(names):
        raise UserError(f"layer {name!r} names a layer twice")
    kinds = {layer_kind(layer) for layer in layers}
    widths = [weight_matrix(layer).shape[1] for layer in layers]
    if len(kinds) > 1 or len(set(widths)) > 1:
        found = ", ".join(
            f"{one} is {layer_kind(layer)} with {width}"
            for one, layer, width in zip(names, layers, widths, strict=True)
        )
        raise UserError(
            f"layer {name!r}: layers that move as one matrix must be of one kind with equal in_features, but {found}"
        )
    return layers


def _find_layer(model: nn.Module, name: str) -> nn.Module:
    known = matrix_layers(model)
    if name in known:
        return known[name]
    modules = dict(model.named_modules())
    if name not in modules or not name:
        raise UserError(f"layer {name!r} does not exist; the layers to choose from are {', '.join(known)}")
    groups = getattr(modules[name], "groups", 1)
    kind = type(modules[name]).__name__ + (f" with {groups} groups" if groups > 1 else "")
    raise UserError(
        f"layer {name!r} is a {kind}, whose weight is not a matrix (Linear, Conv1d "
        f"or Conv2d without groups); the layers to choose from are {', '.join(known)}"
    )


def refuse_shared_weights(model: nn.Module, name: str) -> None:
    """Refuse a layer whose weight another module uses too.

    Raises:
        UserError: it is shared; the message names both.
    """
    for one, layer in zip(layer_names(name), find_layers(model, name), strict=True):
        for other, module in model.named_modules():
            if module is not layer and any(p is layer.weight for p in module.parameters(recurse=False)):
                raise UserError(
                    f"layer {one!r} shares its weight with {other!r}; a weight that moves must belong to only one layer"
                )


def weight_matrix(*layers: nn.Module) -> Tensor:
    """The weight of one layer as an (O, I) matrix (a view), or those of several, stacked along O (a copy)."""
    matrices = []
    for layer in layers:
        weight = layer.weight
        assert isinstance(weight, Tensor)
        matrices.append(weight.detach().flatten(1))
    return matrices[0] if len(matrices) == 1 else torch.cat(matrices)


def bias_vector(*layers: nn.Module) -> Tensor | None:
    """The biases of the layers side by side, (O,), zeros for a layer without one; None if no layer has one."""
    if all(layer.bias is None for layer in layers):
        return None
    parts = []
    for layer in layers:
        matrix = weight_matrix(layer)
        parts.append(layer.bias.detach() if isinstance(layer.bias, Tensor) else matrix.new_zeros(len(matrix)))
    return parts[0] if len(parts) == 1 else torch.cat(parts)


def see_the_same(first: nn.Module, second: nn.Module) -> bool:
    """Whether two layers turn the same input into the same matrix (see `input_matrix`)."""
    if first is second:
        return True
    keys = ("kernel_size", "stride", "padding", "dilation", "padding_mode")
    return all(getattr(first, key, None) == getattr(second, key, None) for key in keys)


def input_matrix(layer: nn.Module, value: Tensor) -> Tensor:
    """What the weight matrix multiplies: the layer's input as (N, P, I)."""
    if isinstance(layer, nn.Linear):
        if value.dim() < 2:
            raise UserError("the selected layer's input has no sample axis: keep the samples in the first axis")
        return value.reshape(value.shape[0], -1, value.shape[-1])
    assert isinstance(layer, nn.Conv1d | nn.Conv2d)
    if isinstance(layer.padding, str) or layer.padding_mode != "zeros":
        value = F.pad(
            value,
            layer._reversed_padding_repeated_twice,
            mode="constant" if layer.padding_mode == "zeros" else layer.padding_mode,
        )
        padding: tuple[int, ...] = (0,) * len(layer.kernel_size)
    else:
        padding = layer.padding
    dims = (layer.kernel_size, layer.dilation, padding, layer.stride)
    if isinstance(layer, nn.Conv1d):
        value = value.unsqueeze(2)
        dims = ((1, *dims[0]), (1, *dims[1]), (0, *dims[2]), (1, *dims[3]))
    return F.unfold(value, *dims).transpose(1, 2)
