"""Base networks by name: a model `name` is the class that `ocd_core.models.<name>` calls MODEL.

Found by their file's name and imported only when asked for, so that a new network changes no shared file.
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
    """`module:attribute` of a model; a `module:Class` of your own package is its own target.

    Raises:
        UserError: unknown name.
    """
    if ":" in name:
        return name
    if name not in model_names():
        raise UserError(
            f"unknown model {name!r}; known are {', '.join(model_names())}, or give 'module:Class' of your own"
        )
    return f"{__name__}.{name}:MODEL"


def build_model(name: str, args: Mapping[str, Any]) -> nn.Module:
    """Make a base network.

    Args:
        name: as for `model_target`.
        args: keyword arguments of its constructor.

    Raises:
        UserError: unknown name, a module that does not import, or arguments that the constructor refuses.
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
        raise UserError(f"model {name!r} does not take these arguments: {error}") from error
    if not isinstance(model, nn.Module):
        raise UserError(f"{target!r} makes a {type(model).__name__}, not a torch.nn.Module")
    return model
