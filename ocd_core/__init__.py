"""OCD: learning to overfit with conditional diffusion models, as a library.

The names below are imported on first use, so that `import ocd_core` stays cheap.

Examples:
    >>> import ocd_core
    >>> ocd_core.__version__.count(".")
    2
"""

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

from ocd_core._version import __version__

# Spinning OpenMP threads slow small-tensor loops by orders of magnitude as soon as anything else runs;
# this must be set before torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

if TYPE_CHECKING:
    from ocd_core.calls.ocd import OCD as OCD
    from ocd_core.predictor import Predictor as Predictor
    from ocd_core.store import OverfitStore as OverfitStore


__all__ = ["OCD", "OverfitStore", "Predictor", "__version__"]
_LAZY = {"OCD": "ocd_core.calls.ocd", "Predictor": "ocd_core.predictor", "OverfitStore": "ocd_core.store"}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'ocd_core' has no attribute {name!r}")
