"""Samplers by name: `name` is the function that `ocd_core.diffusion.samplers.<name>` calls `sample`.

Your own package can add one, a `base.Sampler`, with an entry point in the group `ocd.samplers`.
"""

from typing import TYPE_CHECKING

from ocd_core.registry import Registry

if TYPE_CHECKING:
    from ocd_core.diffusion.samplers.base import Sampler

SAMPLERS = Registry("sampler", __name__, "sample", "ocd.samplers")


def sampler(name: str) -> "Sampler":
    """A sampler.

    Raises:
        UserError: unknown name, or its module cannot be imported.
    """
    found: Sampler = SAMPLERS.load(name)
    return found
