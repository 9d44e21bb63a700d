"""Base networks by name, each imported only when it is asked for."""

from collections.abc import Mapping
from importlib import import_module
from typing import Any

from torch import nn

from ocd_core.errors import UserError

# name -> "module:class"; the module's file is part of a task's code fingerprint
MODELS = {
    "lenet5": "ocd_core.models.lenet5:LeNet5",
    "mlp": "ocd_core.models.mlp:MLP",
}


def build_model(name: str, args: Mapping[str, Any]) -> nn.Module:
    """Make a base network.

    Args:
        name: a key of `MODELS`, or `module:class` of your own package.
        args: keyword arguments of its constructor.

    Raises:
        UserError: unknown name or arguments that the constructor refuses.
    """
    target = MODELS.get(name, name)
    if ":" not in target:
        raise UserError(f"unknown model {name!r}; known are {', '.join(MODELS)}, or give 'module:class' of your own")
    module, cls = target.split(":")
    try:
        constructor = getattr(import_module(module), cls)
    except (ImportError, AttributeError) as error:
        raise UserError(f"cannot import model {target!r}: {error}") from error
    try:
        model = constructor(**args)
    except (TypeError, ValueError) as error:
        raise UserError(f"model {name!r} does not take these arguments: {error}") from error
    if not isinstance(model, nn.Module):
        raise UserError(f"{target!r} makes a {type(model).__name__}, not a torch.nn.Module")
    return model
