"""A task's results: every evaluated run of it, merged over seeds, with the rows that come from other ranks and presets.

A row `ocd_alternative_layer` is the row `ocd` of the layer of rank 2 (the paper's "alternative layer"). A row
`ocd_<preset>` is the row `ocd` of the task `<task>_<preset>`, which `ocd preset` writes.
"""

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ocd_core.artifacts import Artifacts
from ocd_core.errors import UserError
from ocd_core.evaluation.result import Absent, Result, corrected
from ocd_core.evaluation.table import read_result_table
from ocd_core.params_files import NAME_BYTES
from ocd_core.presets import preset_names
from ocd_core.provenance import AGAIN, check_files
from ocd_core.report.alike import tables_alike

Table = dict[str, Any]  # of one run, as the stage `evaluate` writes it
ALTERNATIVE = "ocd_alternative_layer"
_MEANS = ("mean", "spread_over_samples", "low", "high", "difference", "difference_low", "difference_high", "z",
          "gap_closed", "temperature", "noise", "seconds")  # fmt: skip
# what becomes of the known values of several seeds
_OVER_SEEDS: dict[str, Callable[[list[Any]], Any]] = {
    **dict.fromkeys(_MEANS, statistics.mean),
    **dict.fromkeys(("flops", "fit_flops"), lambda counts: round(statistics.mean(counts))),
    "p": max,
}


@dataclass(frozen=True)
class Merged:
    """The results of one layer rank of a task over its seeds.

    tables: of its runs, by seed. results: in the order of the rows. absent: rows without values.
    """

    rank: int
    tables: list[Table]
    results: list[Result]
    absent: list[Absent]

    @property
    def seeds(self) -> list[int]:
        """The seeds of the runs."""
        return [table["seed"] for table in self.tables]

    def rows(self) -> dict[str, dict[tuple[str, bool], Result]]:
        """{row: {(metric, whether adjusted on validation): result}}."""
        found: dict[str, dict[tuple[str, bool], Result]] = {}
        for result in self.results:
            found.setdefault(result.row, {})[result.metric, result.adjusted] = result
        return found


def run_tables(task: str, root: Path | str = ".") -> list[Table]:
    """Read `table.json` of the evaluated runs of a task, ordered by rank and seed; see `alike` for which.

    Raises:
        UserError: the task has no evaluated run.
    """
    tables = _tables(task, root)
    if not tables:
        folder = Artifacts(task, root=Path(root)).task_dir
        raise UserError(f"no evaluated run of task {task!r} below {folder}; run 'dvc repro' first")
    return tables_alike(tables, root)


def _tables(task: str, root: Path | str) -> list[Table]:
    folder = Artifacts(task, root=Path(root)).task_dir
    tables = [read_run_table(path.parent) for path in folder.glob("seed*/rank*/evaluation/table.json")]
    return sorted(tables, key=lambda t: (t["rank"], t["seed"]))


def read_run_table(evaluation: Path) -> Table:
    """`table.json` of one run's folder `evaluation`.

    Raises:
        UserError: the folder is damaged, or its table is none.
    """
    check_files(evaluation, AGAIN, "evaluate")
    return read_result_table(evaluation / "table.json")


def merged_results(tables: Sequence[Table], preset_tables: dict[str, list[Table]] | None = None) -> list[Merged]:
    """One entry per rank of a task's `run_tables`; the first also holds the rows of other ranks and presets.

    Args:
        preset_tables: {preset: `run_tables` of the task under that preset}.
    """
    by_rank: dict[int, list[Table]] = {}
    for table in tables:
        by_rank.setdefault(table["rank"], []).append(table)
    found = []
    for rank, group in by_rank.items():
        results = over_seeds([[Result(**r) for r in table["results"]] for table in group])
        if rank == min(by_rank):
            others = [
                (ALTERNATIVE, f"OCD, alternative layer ({t[0]['layer']})", t) for r, t in by_rank.items() if r == 2
            ]
            others += [
                (f"ocd_{preset}", f"OCD, preset {preset}", [t for t in tables if t["rank"] == rank])
                for preset, tables in (preset_tables or {}).items()
            ]
            for row, title, of in others:
                results += _renamed(of, row, title)
        absent = {a["row"]: Absent(**a) for table in group for a in table["absent"]}
        found.append(Merged(rank, group, corrected(results), list(absent.values())))
    return found


def preset_tables(task: str, root: Path | str = ".") -> dict[str, list[Table]]:
    """The evaluated runs of a task under each preset that has any, see `merged_results`."""
    names = {preset: f"{task}_{preset}" for preset in preset_names()}
    found = {preset: _tables(name, root) for preset, name in names.items() if len(name.encode()) <= NAME_BYTES}
    return {preset: tables_alike(tables, root) for preset, tables in found.items() if tables}


def _renamed(tables: Sequence[Table], row: str, title: str) -> list[Result]:
    """The row `ocd` of other runs under another name."""
    drawn = [[Result(**r) for r in table["results"] if r["row"] == "ocd"] for table in tables]
    return [r.model_copy(update={"row": row, "title": title}) for r in over_seeds(drawn)] if any(drawn) else []


def over_seeds(runs: Sequence[Sequence[Result]]) -> list[Result]:
    """Each row's result of each metric over the runs that have it, see `Result`; the order is the first run's."""
    groups: dict[tuple[str, str, bool], list[Result]] = {}
    for run in runs:
        for r in run:
            groups.setdefault((r.row, r.metric, r.adjusted), []).append(r)
    return [group[0] if len(group) == 1 else _merge(group) for group in groups.values()]


def _merge(group: list[Result]) -> Result:
    values: dict[str, Any] = {}
    for name, merge in _OVER_SEEDS.items():
        known = [v for v in (getattr(r, name) for r in group) if v is not None]
        values[name] = merge(known) if known else None
    signs = {math.copysign(1, r.difference) for r in group if r.difference}
    if len(signs) > 1 and values["p"] is not None:  # better with one seed and worse with another
        values["p"] = 1.0
    means = [r.mean for r in group if r.mean is not None]
    values |= {
        "seeds": len(group),
        "sd_over_seeds": statistics.stdev(means) if len(means) > 1 else None,
        # a chosen gain is part of the title and may differ between seeds
        "title": " / ".join(dict.fromkeys(r.title for r in group)),
    }
    return group[0].model_copy(update=values)
