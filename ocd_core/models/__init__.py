"""Base networks by name: the model `name` is the class, or a function that makes the network, which
`ocd_core.models.<name>` calls MODEL.

Your own package can add a model with an entry point in the group `ocd.models`.
"""

from collections.abc import Mapping
from typing import Any

from torch import nn

from ocd_core.errors import UserError
from ocd_core.registry import Registry

MODELS = Registry("model", __name__, "MODEL", "ocd.models")


def build_model(name: str, args: Mapping[str, Any]) -> nn.Module:
    """Make a base network.

    Args:
        name: a name that `MODELS` knows, or `module:Class` of your own.
        args: keyword arguments of the model's constructor.

    Raises:
        UserError: the name is unknown, its module cannot be imported, or the constructor refuses the arguments.
    """
    constructor = MODELS.load(name)
    try:
        model = constructor(**args)
    except (TypeError, ValueError) as error:
        raise UserError(f"model {name!r} does not accept these arguments: {error}") from error
    if not isinstance(model, nn.Module):
        raise UserError(f"{MODELS.target(name)!r} makes a {type(model).__name__}, not a torch.nn.Module")
    return model
