"""Base networks by name: the model `name` is the class that `ocd_core.models.<name>` calls MODEL.

Models are found by file name and imported only on demand, so that a new network changes no shared file.
"""

from collections.abc import Mapping
from importlib import import_module
from pkgutil import iter_modules
from typing import Any

from torch import nn

from ocd_core.errors import UserError


def model_names() -> list[str]:
    """The base networks that come with this package."""
    return sorted(m.name for m in iter_modules(__path__) if not m.ispkg)


def model_target(name: str) -> str:
    """`module:attribute` of a model; a name of the form `module:Class` (your own package) is returned unchanged.

    Raises:
        UserError: the name is unknown.
    """
    if ":" in name:
        return name
    if name not in model_names():
        raise UserError(
            f"unknown model {name!r}; known are {', '.join(model_names())}, or name your own as 'module:Class'"
        )
    return f"{__name__}.{name}:MODEL"


def build_model(name: str, args: Mapping[str, Any]) -> nn.Module:
    """Make a base network.

    Args:
        name: see `model_target`.
        args: keyword arguments of the model's constructor.

    Raises:
        UserError: the name is unknown, its module cannot be imported, or the constructor refuses the arguments.
    """
    target = model_target(name)
    module, attribute = target.split(":")
    try:
        constructor = getattr(import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise UserError(f"cannot import model {target!r}: {error}") from error
    try:
        model = constructor(**args)
    except (TypeError, ValueError) as error:
        raise UserError(f"model {name!r} does not accept these arguments: {error}") from error
    if not isinstance(model, nn.Module):
        raise UserError(f"{target!r} makes a {type(model).__name__}, not a torch.nn.Module")
    return model
