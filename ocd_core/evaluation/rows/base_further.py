"""`base_further`: the base trained further, all layers, from its own weights with a new optimiser of the same kind.

It shows what the same compute gives without OCD: unless its params say otherwise, it may take as many epochs as cost
the same as OCD's training.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

from ocd_core.evaluation.further import FurtherParams, FurtherRow


class BaseFurtherParams(FurtherParams):
    """`controls.base_further`."""


class BaseFurther(FurtherRow):
    """All that the base trained, on its own batches."""

    Params = BaseFurtherParams
    quick: ClassVar[Mapping[str, Any]] = {"epochs": 1, "patience": None, "lrs": [1e-4]}
    title = "base trained further"
    prefix = "further"


ROW = BaseFurther
