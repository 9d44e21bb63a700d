"""`base_further_augmented`: as `base_further`, on augmented batches.

Where a domain knows an augmentation, this is often the best use of further compute, and the base that OCD must beat.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

from ocd_core.evaluation.context import Context
from ocd_core.evaluation.further import FurtherParams, FurtherRow
from ocd_core.tasks.base import Task


class AugmentedParams(FurtherParams):
    """`controls.base_further_augmented`."""

    augment: str  # a kind that the domain knows


class BaseFurtherAugmented(FurtherRow):
    """All that the base trained, on batches that the domain augments."""

    Params = AugmentedParams
    quick: ClassVar[Mapping[str, Any]] = {"epochs": 1, "patience": None, "lrs": [1e-4], "augment": "crop_flip"}
    params: AugmentedParams

    @property
    def title(self) -> str:
        """The title says how batches are augmented."""
        return f"base trained further, augmented ({self.params.augment})"

    def left_out(self) -> str | None:
        """The domain must know an augmentation."""
        if self.context.task.augmented(self.params.augment) is None:
            return f"the domain has no augmentation {self.params.augment}"
        return super().left_out()

    def task(self, context: Context) -> Task:
        """The run's, with augmented training batches."""
        found = context.task.augmented(self.params.augment)
        assert found is not None
        return found


ROW = BaseFurtherAugmented
