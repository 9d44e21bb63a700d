"""Representations of Δ by name: `name` is the class that `ocd_core.codes.representations.<name>` calls REPRESENTATION.

Your own package can add one, a subclass of `base.Representation`, with an entry point in the group
`ocd.representations`.
"""

from typing import TYPE_CHECKING

from ocd_core.errors import UserError
from ocd_core.registry import Registry

if TYPE_CHECKING:
    from ocd_core.codes.representations.base import Representation

REPRESENTATIONS = Registry("representation", __name__, "REPRESENTATION", "ocd.representations")


def representation_class(name: str) -> "type[Representation]":
    """The class of a representation.

    Raises:
        UserError: unknown name, its module cannot be imported, or it is no representation.
    """
    from ocd_core.codes.representations.base import Representation

    found = REPRESENTATIONS.load(name)
    if not (isinstance(found, type) and issubclass(found, Representation)):  # before anything calls it
        raise UserError(f"representation {name!r} is no subclass of ocd_core.codes.representations.base.Representation")
    return found
