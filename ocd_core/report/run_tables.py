"""Tables of a task's runs, for the terminal and for reports/<task>/."""

import statistics
from collections.abc import Callable
from typing import Any

from ocd_core.evaluation.noise import POINTS
from ocd_core.evaluation.result import Result
from ocd_core.evaluation.statistics import p_text
from ocd_core.report.markdown import as_text, markdown_table
from ocd_core.report.results import Merged, Table
from ocd_core.terminal import plain, print_table

SIGNIFICANT = 0.05


def _number(value: float | None, metric: dict[str, Any]) -> str:
    return "–" if value is None else f"{value:.{metric['decimals']}f}"


def cell(result: Result | None, metric: dict[str, Any], starred: bool = False) -> str:
    """The value, ± its SD over seeds if there are several; with a star if it differs from the base's."""
    if result is None:
        return ""
    spread = "" if result.sd_over_seeds is None else f" ± {_number(result.sd_over_seeds, metric)}"
    star = "\\*" if starred and result.p_holm is not None and result.p_holm < SIGNIFICANT else ""
    return f"{_number(result.mean, metric)}{spread}{star}"


def _against_base(result: Result, metric: dict[str, Any]) -> list[str]:
    """The difference from the base with its interval, its z and corrected p, and the share of the gap."""
    if result.difference is None or result.z is None or result.p_holm is None:
        return ["", "", "", ""]
    low, high = (f"{v:+z.{metric['decimals']}f}" for v in (result.difference_low, result.difference_high))
    gap = "" if result.gap_closed is None else f"{round(100 * result.gap_closed)} %"
    return [
        f"{result.difference:+z.{metric['decimals']}f} [{low}, {high}]",
        f"{result.z:+.1f}",
        p_text(result.p_holm),
        gap,
    ]


def _units(table: Table) -> str:
    """What intervals and z are taken over."""
    groups = table.get("groups")
    return "test samples" if groups is None else f"{groups} groups of test samples"


def notes(entry: Merged, text: Callable[[str], str] = str) -> list[str]:
    """The notes that a reader of a merged table needs; text: makes what the run says fit for where they are shown."""
    first = entry.tables[0]
    metric = first["metrics"][0]
    name = text(metric["name"].replace("_", " "))
    several = len(entry.tables) > 1
    lines = [
        f"difference: from the base in {name}, with a 95 % bootstrap interval; z: paired over {_units(first)}"
        f"{', like the difference a mean over seeds' if several else ''}; p: two-sided, Holm-corrected over the rows"
        f"{', the largest of the seeds, or 1 if they disagree in the sign' if several else ''}. gap closed: the share "
        f"of the way from the base to the bound. \\*: differs from the base with a corrected p below {SIGNIFICANT} "
        "(paired t-test; accuracy: McNemar's exact test)."
    ]
    temperatures = {r.row: r.temperature for r in entry.results if r.temperature is not None}
    if temperatures:
        low, high = min(temperatures.values()), max(temperatures.values())
        lines.append(
            f"+T: after a temperature that each row chose on validation ({low:.2f} to {high:.2f}; base "
            f"{temperatures['base']:.2f}; above 1 the row was too sure of itself)."
        )
    noise = [r.noise for r in entry.results if r.noise is not None]
    if noise:
        lines.append(
            f"+σ: after Gaussian noise around the answers, whose deviation each row chose on validation "
            f"({min(noise):.2g} to {max(noise):.2g}, in the unit of the network's outputs); every distribution then "
            f"has {POINTS} points."
        )
    parts = [table["bound_parts"] for table in entry.tables if table.get("bound_parts")]
    if parts:
        share, seen = (statistics.mean(p[k] for p in parts) for k in ("share_seen", "seen"))
        seen_part = f"The bound sees {100 * share:.0f} % of each test sample: {name} {_number(seen, metric)} there"
        unseen = [p["unseen"] for p in parts if p["unseen"] is not None]
        rest = f", {_number(statistics.mean(unseen), metric)} on the rest" if unseen else ""
        lines.append(f"{seen_part}{rest}.")
    lines += [f"{text(absent.row)}: {absent.status}, because {text(absent.why)}." for absent in entry.absent]
    return [*lines, *map(text, first.get("remarks", []))]


def with_unit(metric: dict[str, Any], suffix: str = "") -> str:
    """A metric's name in words, with its unit."""
    unit = f" {metric['unit']}" if metric["unit"] else ""
    return f"{metric['name'].replace('_', ' ')}{suffix}{unit}"


def heading(metric: dict[str, Any], suffix: str = "") -> str:
    """A metric's column title, with its unit and an arrow in the direction that is better, if one is."""
    arrow = {True: " ↑", False: " ↓", None: ""}[metric["higher_is_better"]]
    return f"{with_unit(metric, suffix)}{arrow}"


def columns_and_rows(entry: Merged, text: Callable[[str], str] = str) -> tuple[list[str], list[list[str]]]:
    """The titles of the columns, and the formatted cells of each row; text: as for `notes`."""
    first, *others = entry.tables[0]["metrics"]
    tempered = any(r.temperature is not None for r in entry.results)
    adjusted = {r.metric for r in entry.results if r.noise is not None}
    with_noise = [m for m in others if m["name"] in adjusted]
    columns = ["method", text(heading(first)), "difference [95 %]", "z", "p", "gap closed"]
    columns += [text(heading(first, " +T"))] if tempered else []
    columns += [text(heading(m)) for m in others] + [text(heading(m, " +σ")) for m in with_noise]
    rows = []
    for found in entry.rows().values():
        result = found[first["name"], False]
        cells = [text(result.title), cell(result, first), *_against_base(result, first)]
        cells += [cell(found.get((first["name"], True)), first, True)] if tempered else []
        cells += [cell(found.get((m["name"], False)), m, True) for m in others]
        cells += [cell(found.get((m["name"], True)), m, True) for m in with_noise]
        rows.append(cells)
    return columns, rows


def caption(entry: Merged) -> str:
    """The caption of a merged table."""
    first, seeds = entry.tables[0], entry.seeds
    spread = "" if len(seeds) == 1 else ", mean ± SD over seeds"
    names = ", ".join(map(str, seeds))
    layers = ", ".join(sorted({table["layer"] for table in entry.tables}))
    count = entry.results[0].n
    return (
        f"{first['task']}, layer {layers} (rank {entry.rank}), {count:,} test samples, "
        f"seed{'s' if len(seeds) > 1 else ''} {names}{spread}"
    )


def print_tables(entries: list[Merged]) -> None:
    """Show the tables on the terminal."""
    for entry in entries:
        print(plain(caption(entry)))
        columns, rows = columns_and_rows(entry)
        print_table(columns, [[cell.replace("\\*", "*") for cell in row] for row in rows], framed=True, numbers=True)
        for line in notes(entry):
            print(plain(line.replace("\\*", "*")))


def markdown(entries: list[Merged]) -> str:
    """The tables as Markdown."""
    parts = []
    for entry in entries:
        lines = [
            f"**{as_text(caption(entry))}**",
            "",
            markdown_table(*columns_and_rows(entry, as_text)),
            *(line for note in notes(entry, as_text) for line in ("", note)),
        ]
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"
