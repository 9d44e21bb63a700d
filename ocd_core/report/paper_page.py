"""A task's results beside the paper's: reports/<task>/paper.md."""

from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

from ocd_core.evaluation.result import Absent
from ocd_core.report.markdown import as_text, markdown_table
from ocd_core.report.paper_tables import PaperTask, PaperValue, paper_rows
from ocd_core.report.results import Merged
from ocd_core.report.run_tables import caption, cell, with_unit
from ocd_core.terminal import code_text

_EDITIONS = {"icml2023": "ICML 2023", "preprint2022": "preprint 2022"}
_ABOUT = """# {task} beside the paper

The paper's values are cited, not measured here; a row that only the paper has says so. Preprint: the edition of 2022,
where its values differ.
"""


def paper_markdown(entry: Merged, compared: PaperTask, not_run: Sequence[Absent]) -> str:
    """The page of a task's first layer rank.

    Args:
        compared: the paper's data set for the task, from `paper_task`.
        not_run: rows that would take too long here.
    """
    task = entry.tables[0]["task"]
    values = paper_rows(compared.dataset)
    metrics = [m for m in entry.tables[0]["metrics"] if any(v.metric == m["name"] for v in values)]
    editions = {m["name"]: _editions(values, m["name"]) for m in metrics}
    columns = ["method"]
    for m in metrics:
        columns += [
            f"{with_unit(m)}, here",
            *(f"{with_unit(m)}, {_EDITIONS[edition]}" for edition in editions[m["name"]]),
        ]
    parts = [_ABOUT.format(task=task), f"**{as_text(caption(entry))}**", ""]
    parts.append(markdown_table(columns, _rows(entry, not_run, values, metrics, editions)))
    parts += [f"\n{note}" for note in _notes(entry, not_run, compared, values, metrics)]
    return "\n".join(parts) + "\n"


def _editions(values: Sequence[PaperValue], metric: str) -> list[str]:
    """The editions whose values of a metric differ; ICML alone if the preprint has the same."""
    printed = {
        edition: {v.printed_row: v.printed for v in values if (v.edition, v.metric) == (edition, metric)}
        for edition in _EDITIONS
    }
    first, other = (printed[edition] for edition in _EDITIONS)
    same = all(first.get(row) == text for row, text in other.items())
    return [edition for edition, rows in printed.items() if rows and not (edition == "preprint2022" and same)]


def _rows(
    entry: Merged,
    not_run: Sequence[Absent],
    values: Sequence[PaperValue],
    metrics: Sequence[dict[str, Any]],
    editions: dict[str, list[str]],
) -> Iterator[list[str]]:
    def cells(found: Any, paper: Sequence[PaperValue]) -> Iterator[str]:
        for m in metrics:
            yield cell(found.get((m["name"], False)), m) if found else "–"
            for edition in editions[m["name"]]:
                yield next((v.printed for v in paper if (v.metric, v.edition) == (m["name"], edition)), "")

    ours = entry.rows()
    for row, found in ours.items():
        title = next(iter(found.values())).title
        yield [as_text(title), *cells(found, [v for v in values if v.row == row])]
    for absent in [*entry.absent, *not_run]:
        yield [f"`{code_text(absent.row)}` ({absent.status})", *cells(None, [v for v in values if v.row == absent.row])]
    known = {*ours, *(absent.row for absent in [*entry.absent, *not_run])}
    for printed in dict.fromkeys(v.printed_row for v in values if v.row not in known):
        yield [f"{printed} (cited, not run)", *cells(None, [v for v in values if v.printed_row == printed])]


def _notes(
    entry: Merged,
    not_run: Sequence[Absent],
    compared: PaperTask,
    values: Sequence[PaperValue],
    metrics: Sequence[dict[str, Any]],
) -> Iterator[str]:
    names = {m["name"] for m in metrics}
    tables = dict.fromkeys((v.edition, v.table) for v in values if v.metric in names)
    cited = "; ".join(f"{_EDITIONS[edition]}, Tab. {number}" for edition, number in tables)
    yield f"Data set: {compared.dataset} ({cited}){'' if compared.note is None else f'; {compared.note}'}."
    for absent in [*entry.absent, *not_run]:
        yield f"`{code_text(absent.row)}`: {absent.status}, because {as_text(absent.why)}."
    noted = [v for v in values if v.note is not None and v.metric in names]
    for (edition, table, note), same in groupby(noted, lambda v: (v.edition, v.table, v.note)):
        of, *others = same
        where = "" if others else f", {of.printed_row}, {of.metric.replace('_', ' ')}"
        yield f"{_EDITIONS[edition]}, Tab. {table}{where}: {note}."
