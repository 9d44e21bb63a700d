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
    every = [found[metric, False] for found in entry.rows().values()]
    own = {r["row"] for r in entry.tables[0]["results"]}  # another layer's or preset's row was fitted in another run
    operations = {r.row: r.fit_flops for r in every if r.fit_flops and r.row in own}
    for r in every:
        taken = _fitted(r.row, fitting, operations) if r.row in own else None
        answer, fit = (["–" if s is None else duration(s)] for s in (r.seconds, taken))
        answers, fits = (["–" if n is None else f"{n:.2g}"] for n in (r.flops, r.fit_flops))
        rows.append([r.title, r.chosen_on or "nothing", *answer, *answers, *fit, *fits])
    return Table(_HEADS, rows, numbers=4)


def _fitted(row: str, seconds: Mapping[str, float], operations: Mapping[str, int]) -> float | None:
    """The time of the training that a row rests on: its own, OCD's, or its share of its family's by operations.

    Variants of a family are fitted together, and may need a part of the fit alone, as an ensemble of few members does.
    """
    cls = class_of(row)
    if row in seconds or cls is None:
        return seconds.get(row)
    family = cls.__module__.rpartition(".")[2]
    training = cls.training_of(row.removeprefix(family).removeprefix("_"))
    if training is not None or family not in seconds or row not in operations:
        return seconds.get(training or family)
    return seconds[family] * operations[row] / max(n for name, n in operations.items() if class_of(name) is cls)
