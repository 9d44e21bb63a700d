"""The schema of a result: one row's value of one metric, for one run or for several seeds of it."""

from collections.abc import Sequence
from typing import Literal

from ocd_core.evaluation.statistics import holm
from ocd_core.strict import StrictModel


class Result(StrictModel):
    """One row, one metric. None stands for what is not defined, not known, or does not apply.

    row, title, metric: names. mean: the reported number; of several seeds their mean. temperature: that divided the
    row's logits, and noise: the deviation of the noise around the answers, both chosen on validation; both None: the
    outputs as they are. seeds: how many; sd_over_seeds: the standard deviation over them. n: test samples.
    spread_over_samples: the standard deviation over samples of the reported values. low, high: the 95 % bootstrap
    interval of `mean` over test samples. difference: from the base, with its interval. z, p: of the paired comparison
    with the base; p_holm: corrected over the rows of the table. gap_closed: the share of the way from the base to the
    bound, of the first metric. seconds, flops: to answer one test sample. fit_flops: to fit the row beforehand. preset:
    of the method, `default` if none. chosen_on: the data that the row was fitted or chosen on. Of several seeds, z,
    gap_closed, seconds and the intervals' ends are means, and p and p_holm the largest.
    """

    row: str
    title: str
    metric: str
    mean: float | None
    temperature: float | None
    noise: float | None
    seeds: int
    sd_over_seeds: float | None
    n: int
    spread_over_samples: float | None
    low: float | None
    high: float | None
    difference: float | None
    difference_low: float | None
    difference_high: float | None
    z: float | None
    p: float | None
    p_holm: float | None
    gap_closed: float | None
    seconds: float | None
    flops: int | None
    fit_flops: int | None
    preset: str
    chosen_on: str

    @property
    def adjusted(self) -> bool:
        """Whether the row chose a temperature or noise on validation for this result."""
        return self.temperature is not None or self.noise is not None


def corrected(results: Sequence[Result]) -> list[Result]:
    """The same with `p_holm` over all rows of the table, separately for each metric, as it is and adjusted."""
    tested: dict[tuple[str, bool], dict[int, float]] = {}
    for i, r in enumerate(results):
        if r.p is not None:
            tested.setdefault((r.metric, r.adjusted), {})[i] = r.p
    adjusted: dict[int, float] = {}
    for same in tested.values():
        adjusted |= dict(zip(same, holm(list(same.values())), strict=True))
    return [r.model_copy(update={"p_holm": adjusted.get(i)}) for i, r in enumerate(results)]


class Absent(StrictModel):
    """A row without values. left_out: it does not apply; failed: it was tried. why: a clause after "because"."""

    row: str
    status: Literal["left out", "failed", "not run"]
    why: str
