"""Run a whole network that is not traced: what its layers read, and its output with theirs replaced."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ocd_core.errors import UserError
from ocd_core.network.tracing import chained_error
from ocd_core.samples import Tensors


def inputs_of_layers(
    network: nn.Module, layers: Sequence[nn.Module], names: Sequence[str], inputs: Sequence[Tensor],
    changed: int | None = None,
) -> list[Tensor]:  # fmt: skip
    """What each layer reads in a forward pass; if two read the same tensor, one tensor stands for both.

    Args:
        changed: the index of a layer whose output is changed in this pass.

    Raises:
        UserError: a layer is not used exactly once.
    """
    seen: list[list[tuple[Tensor, int, Tensor]]] = [[] for _ in layers]

    def keep(of: int, args: tuple[Tensor, ...], named: dict[str, Tensor]) -> None:
        value = args[0] if args else named["input"]
        # a copy, because the model may later change this tensor in place
        seen[of].append((value, value._version, value.clone()))

    hooks = [
        layer.register_forward_pre_hook(lambda _m, args, named, of=of: keep(of, args, named), with_kwargs=True)
        for of, layer in enumerate(layers)
    ]
    if changed is not None:
        hooks.append(layers[changed].register_forward_hook(lambda _m, _args, out: out + 1))
    try:
        network(*inputs)
    finally:
        for hook in hooks:
            hook.remove()
    for name, of in zip(names, seen, strict=True):
        if len(of) != 1:
            raise UserError(f"layer {name!r} is used {len(of)} times in a forward pass; it must be used once")
    values = [of[0] for of in seen]
    found: list[Tensor] = []
    for value, version, copied in values:
        twins = [f for f, (other, at, _) in zip(found, values, strict=False) if other is value and at == version]
        found.append(twins[0] if twins else copied)
    return found


def output_with_layers(
    network: nn.Module, layers: Sequence[nn.Module], outs: Sequence[Tensor], inputs: Sequence[Tensor]
) -> Tensors:
    """The network's output if each layer gives `outs` instead of its own output."""
    hooks = [
        layer.register_forward_hook(lambda _m, _args, _out, out=out: out)
        for layer, out in zip(layers, outs, strict=True)
    ]
    try:
        output: Tensors = network(*inputs)
    finally:
        for hook in hooks:
            hook.remove()
    return output


def refuse_chained(
    network: nn.Module, layers: Sequence[nn.Module], names: Sequence[str], inputs: Sequence[Tensor]
) -> None:
    """Test whether the output of one layer changes the input of another.

    Raises:
        UserError: it does.
    """
    if len(layers) == 1:
        return
    wanted = inputs_of_layers(network, layers, names, inputs)
    for changed in range(len(layers)):
        now = inputs_of_layers(network, layers, names, inputs, changed)
        for name, before, after in zip(names, wanted, now, strict=True):
            if not torch.equal(before, after):
                raise chained_error(name)
