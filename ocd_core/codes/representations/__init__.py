"""Representations of Δ by name: `name` is the class that `ocd_core.codes.representations.<name>` calls REPRESENTATION.

Your own package can add one, a subclass of `base.Representation`, with an entry point in the group
`ocd.representations`.
"""

from typing import TYPE_CHECKING

from ocd_core.registry import Registry

if TYPE_CHECKING:
    from ocd_core.codes.representations.base import Representation

REPRESENTATIONS = Registry("representation", __name__, "REPRESENTATION", "ocd.representations")


def representation_class(name: str) -> "type[Representation]":
    """The class of a representation.

    Raises:
        UserError: unknown name, or its module cannot be imported.
    """
    found: type[Representation] = REPRESENTATIONS.load(name)
    return found
