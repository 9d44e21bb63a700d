"""What it costs a row to answer one test sample."""

import time
from dataclasses import dataclass

from ocd_core.evaluation.costs import flops
from ocd_core.evaluation.row import Row
from ocd_core.evaluation.shared_pass import SharedPass
from ocd_core.predictor import Predictor
from ocd_core.samples import Batch

_COUNTED = 2  # samples on which operations are counted


@dataclass(frozen=True)
class Cost:
    """Of one sample. seconds: wall time; flops: operations of matrix products and convolutions."""

    seconds: float
    flops: int


def cost_of_answers(row: Row, predictor: Predictor, batch: Batch, split_size: int) -> Cost:
    """Measure a row that has answered before, on its own: with the base's pass, sharing nothing with other rows.

    Args:
        batch: of the test split. split_size: samples of the split, which `Row.whole_split` rows answer at once.
    """
    few = batch.select(slice(0, _COUNTED))
    counted, timed = (SharedPass(predictor, part, "test") for part in (few, batch))
    row.forget()
    operations = flops(lambda: row.outputs(counted))
    row.forget()
    start = time.perf_counter()
    row.outputs(timed)
    seconds = time.perf_counter() - start
    sizes = (split_size, split_size) if row.whole_split else (len(few), len(batch))
    return Cost(seconds / sizes[1], operations // sizes[0])
