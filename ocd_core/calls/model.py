"""A network as the pipeline needs it: it takes tensors one after the other, and gives a tensor or a tuple of them."""

import keyword
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ocd_core.errors import UserError
from ocd_core.network.first_inputs import copied
from ocd_core.strict import repeated

Pick = Callable[[Any], Any]
# of an output: all of it, a list as a tuple, the entry `logits`, or what the user's own function takes
Taken = Literal["all", "list", "logits", "own"]
_COMPILED = "_orig_mod"  # where torch.compile keeps the module that it wraps


def plain_network(model: nn.Module) -> nn.Module:
    """A copy on the CPU in float32 and eval mode, without the wrappers of DataParallel and torch.compile.

    Raises:
        UserError: it is no module, or one that only TorchScript can run, or it cannot be copied.
    """
    model = _unwrapped(model)
    if not isinstance(model, nn.Module):
        raise UserError(f"model: give a torch.nn.Module, not {type(model).__name__}")
    if isinstance(model, torch.jit.ScriptModule):
        raise UserError("model: a TorchScript module cannot be cut at a layer; give the module it was made from")
    network = copied(model)
    for module in network.modules():
        module._compiled_call_impl = None
        for name, child in list(module.named_children()):
            if _unwrapped(child) is not child:
                setattr(module, name, _unwrapped(child))
    return network.cpu().float().eval()


def _unwrapped(module: Any) -> Any:
    while True:
        if isinstance(module, nn.DataParallel | nn.parallel.DistributedDataParallel):
            module = module.module
        elif isinstance(module, nn.Module) and _COMPILED in module._modules:
            module = module._modules[_COMPILED]
        else:
            return module


def adapted(network: nn.Module, inputs: Sequence[str], by_name: bool, pick: Pick | None) -> nn.Module:
    """The same module, called with tensors in the order of `inputs`; its layers keep their names.

    Args:
        network: changed in place, but for its weights.
        inputs: names of the inputs. by_name: whether the network takes them as keywords.
        pick: what makes a tensor or a tuple of tensors of the network's output; None: nothing, it is one.

    Raises:
        UserError: see `check_names`.
    """
    check_names(inputs)
    if not by_name and pick is None:
        return network
    base: Any = type(network)
    take = pick or (lambda output: output)

    def answer(module: nn.Module, *tensors: Any) -> Any:
        if by_name:
            return take(base.forward(module, **dict(zip(inputs, tensors, strict=True))))
        return take(base.forward(module, *tensors))

    names: dict[str, Any] = {"answer": answer}
    exec(_forward_text(len(inputs)), names)  # noqa: S102 - made of a number alone
    network.__class__ = type(base.__name__, (base,), {"forward": names["forward"], "__module__": base.__module__})
    return network


def _forward_text(count: int) -> str:
    """The source of a `forward` of so many tensors: torch.fx reads a module's arguments from its code."""
    arguments = ", ".join(f"x{i}" for i in range(count))
    return f"def forward(self, {arguments}):\n    return answer(self, {arguments})\n"


def check_names(inputs: Sequence[str]) -> None:
    """Refuse names of inputs that cannot be keywords, and names that stand twice.

    Raises:
        UserError: names the first one.
    """
    for name in inputs:
        if not name.isidentifier() or keyword.iskeyword(name):
            raise UserError(f"input {name!r}: a dict's keys are passed as keywords, so they must be names")
    if twice := repeated(inputs):
        raise UserError(f"input {twice[0]!r} is named twice; give each input its own name")


def taken_of(output: Any, pick: Pick | None) -> Taken:
    """What must be taken of a network's output to have tensors.

    Args:
        output: of a first batch. pick: the user's own choice.

    Raises:
        UserError: the output holds something else than tensors; the message names what there is.
    """
    found = output if pick is None else pick(output)
    if isinstance(found, Tensor) or (isinstance(found, tuple) and all(isinstance(x, Tensor) for x in found)):
        return "all" if pick is None else "own"
    if pick is None and isinstance(found, list) and all(isinstance(x, Tensor) for x in found):
        return "list"
    if pick is None and isinstance(found, Mapping) and isinstance(found.get("logits"), Tensor):
        return "logits"
    there = f" with {', '.join(map(repr, found))}" if isinstance(found, Mapping) else ""
    raise UserError(
        f"the model's output is a {type(found).__name__}{there}, not a tensor or a tuple of tensors; say what to take, "
        "for example output=lambda out: out['logits']"
    )


def pick_of(taken: Taken, own: Pick | None) -> Pick | None:
    """The function that takes it; None: nothing to do.

    Raises:
        UserError: the user's own function is missing.
    """
    if taken == "own" and own is None:
        raise UserError("the network's output was picked by a function when this was made; give the same output=...")
    return {"all": None, "list": tuple, "logits": _logits, "own": own}[taken]


def _logits(output: Any) -> Any:
    return output["logits"]
