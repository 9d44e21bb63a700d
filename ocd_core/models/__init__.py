"""Base networks by name: the model `name` is the class, or a function that makes the network, which
`ocd_core.models.<name>` calls MODEL.

Your own package can add a model with an entry point in the group `ocd.models`.
"""

from collections.abc import Mapping
from typing import Any, get_type_hints

from torch import nn

from ocd_core.errors import UserError
from ocd_core.files import is_shortage
from ocd_core.registry import Registry

MODELS = Registry("model", __name__, "MODEL", "ocd.models")


def build_model(name: str, args: Mapping[str, Any]) -> nn.Module:
    """Make a base network.

    Args:
        name: a name that `MODELS` knows, or `module:Class` of your own (or a function annotated to return a Module).
        args: keyword arguments of the model's constructor.

    Raises:
        UserError: the name is unknown, its module cannot be imported, it makes no network, or the constructor refuses
            the arguments.
    """
    constructor = MODELS.load(name)
    if not _makes_networks(constructor):  # it is called, so the name alone must not choose what runs
        raise UserError(
            f"{MODELS.target(name)!r} is no torch.nn.Module, nor a function whose annotation says that it returns one"
        )
    try:
        model = constructor(**args)
    except (TypeError, ValueError, ArithmeticError, LookupError, RuntimeError, AssertionError) as error:
        if is_shortage(error):
            raise
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(f"model {name!r} does not accept these arguments: {reason}; correct base.model.args") from error
    if not isinstance(model, nn.Module):
        raise UserError(f"{MODELS.target(name)!r} makes a {type(model).__name__}, not a torch.nn.Module")
    return model


def _makes_networks(constructor: Any) -> bool:
    """Whether this is a network's class, or a function annotated to return one."""
    if isinstance(constructor, type):
        return issubclass(constructor, nn.Module)
    try:
        returned = get_type_hints(constructor).get("return")
    except (NameError, TypeError, AttributeError):
        return False
    return isinstance(returned, type) and issubclass(returned, nn.Module)
