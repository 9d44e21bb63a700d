"""What each row of a run costs: to fit, and for each answer."""

from collections.abc import Mapping

from ocd_core.artifacts import Artifacts
from ocd_core.report.page import Table
from ocd_core.report.results import Merged
from ocd_core.report.row_classes import class_of
from ocd_core.report.run_times import duration, seconds_to_fit

_HEADS = (
    "row", "fitted or chosen on", "time per test sample", "operations per test sample", "time to fit",
    "operations to fit",
)  # fmt: skip


def costs_table(run: Artifacts, entry: Merged) -> Table:
    """Times of one run on the clock, and counted operations; a dash where something is not known or nothing is done."""
    metric = entry.tables[0]["metrics"][0]["name"]
    rows, fitting = [], seconds_to_fit(run)
    for found in entry.rows().values():
        r = found[metric, False]
        answer, fit = (["–" if s is None else duration(s)] for s in (r.seconds, _fitted(r.row, fitting)))
        answers, fits = (["–" if n is None else f"{n:.2g}"] for n in (r.flops, r.fit_flops))
        rows.append([r.title, r.chosen_on or "nothing", *answer, *answers, *fit, *fits])
    return Table(_HEADS, rows, numbers=4)


def _fitted(row: str, seconds: Mapping[str, float]) -> float | None:
    """The time of the training that a row rests on: its own, its family's, or OCD's."""
    cls = class_of(row)
    if row in seconds or cls is None:
        return seconds.get(row)
    return seconds.get(cls.costs_as or cls.__module__.rpartition(".")[2])
