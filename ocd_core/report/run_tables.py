"""Tables of a task's runs, for the terminal and for reports/<task>/."""

import shutil
import statistics
from collections import defaultdict
from functools import partial
from pathlib import Path
from typing import Any

from ocd_core.artifacts import Artifacts, read_json, write_json, write_text
from ocd_core.errors import UserError
from ocd_core.files import replace_file
from ocd_core.report.markdown import markdown_table
from ocd_core.samples import SPLITS

Table = dict[str, Any]


def run_tables(task: str, root: Path | str = ".") -> list[Table]:
    """Read `table.json` of every evaluated run of a task, ordered by rank and seed.

    Raises:
        UserError: the task has no evaluated run.
    """
    folder = Artifacts(task, root=Path(root)).task_dir
    tables = [read_json(path) for path in folder.glob("seed*/rank*/evaluation/table.json")]
    if not tables:
        raise UserError(f"no evaluated run of task {task!r} below {folder}; run 'dvc repro' first")
    return sorted(tables, key=lambda t: (t["rank"], t["seed"]))


def _number(value: float, metric: dict[str, Any]) -> str:
    return f"{value:.{metric['decimals']}f}"


def _cell(entries: list[dict[str, Any]], metric: dict[str, Any]) -> str:
    """For one run, the value and its 95 % interval over samples; for several seeds, mean ± SD over seeds."""
    found = [e[metric["name"]] for e in entries]
    if len(found) == 1:
        value, low, high = (_number(found[0][k], metric) for k in ("value", "low", "high"))
        return f"{value} [{low}, {high}]"
    values = [e["value"] for e in found]
    return f"{_number(statistics.mean(values), metric)} ± {_number(statistics.stdev(values), metric)}"


def _against_base(entries: list[dict[str, Any]], metric: dict[str, Any]) -> tuple[str, str]:
    """The paired z of the first metric against the base, and the share of the gap to the bound, averaged over seeds."""
    if entries[0]["row"] == "base":
        return "", ""
    z = statistics.mean(e[metric["name"]]["z_against_base"] for e in entries)
    gaps = [e["gap_closed"] for e in entries]
    return f"{z:+.1f}", "" if None in gaps else f"{round(100 * statistics.mean(gaps))} %"


def _units(table: Table) -> str:
    """What intervals and z are taken over."""
    groups = table.get("groups")
    return "test samples" if groups is None else f"{groups} groups of test samples"


def notes(group: list[Table]) -> list[str]:
    """The notes that a reader of a merged table needs."""
    metric = group[0]["metrics"][0]
    name = metric["name"].replace("_", " ")
    lines = [
        f"z: paired over {_units(group[0])} against the base, in {name}"
        f"{', mean over seeds' if len(group) > 1 else ''}; negative where the method's is lower. gap closed: the share "
        "of the way from the base to the bound."
    ]
    parts = [table["bound_parts"] for table in group if table.get("bound_parts")]
    if parts:
        share, seen = (statistics.mean(p[k] for p in parts) for k in ("share_seen", "seen"))
        text = f"The bound sees {100 * share:.0f} % of each test sample: {name} {_number(seen, metric)} there"
        unseen = [p["unseen"] for p in parts if p["unseen"] is not None]
        rest = f", {_number(statistics.mean(unseen), metric)} on the rest" if unseen else ""
        lines.append(f"{text}{rest}.")
    lines += [f"{row}: left out, because {why}." for row, why in group[0].get("left_out", {}).items()]
    return [*lines, *group[0].get("remarks", [])]


def heading(metric: dict[str, Any]) -> str:
    """A metric's column title, with its unit and an arrow in the direction that is better."""
    unit = f" {metric['unit']}" if metric["unit"] else ""
    return f"{metric['name'].replace('_', ' ')}{unit} {'↑' if metric['higher_is_better'] else '↓'}"


def merged(tables: list[Table]) -> list[dict[str, Any]]:
    """One entry per rank: its layers, seeds, columns, rows of formatted cells, and notes."""
    by_rank: dict[int, list[Table]] = defaultdict(list)
    for table in tables:
        by_rank[table["rank"]].append(table)
    result = []
    for rank, group in by_rank.items():
        metrics = group[0]["metrics"]
        rows = []
        for i, row in enumerate(group[0]["rows"]):
            entries = [table["rows"][i] for table in group]
            cells = [_cell(entries, m) for m in metrics]
            # a chosen gain is part of the title and may differ between seeds
            title = " / ".join(dict.fromkeys(e["title"] for e in entries))
            rows.append([title, str(row["n"]), *cells, *_against_base(entries, metrics[0])])
        result.append(
            {
                "rank": rank,
                "layers": sorted({t["layer"] for t in group}),
                "seeds": [t["seed"] for t in group],
                "units": _units(group[0]),
                "columns": ["method", "samples", *(heading(m) for m in metrics), "z", "gap closed"],
                "rows": rows,
                "notes": notes(group),
            }
        )
    return result


def caption(entry: dict[str, Any], task: str) -> str:
    """The caption of a merged table."""
    seeds = entry["seeds"]
    spread = f"[95 % bootstrap interval over {entry['units']}]" if len(seeds) == 1 else "± SD over seeds"
    names = ", ".join(map(str, seeds))
    layers = ", ".join(entry["layers"])
    return f"{task}, layer {layers} (rank {entry['rank']}), seed{'s' if len(seeds) > 1 else ''} {names}: {spread}"


def print_tables(tables: list[Table]) -> None:
    """Show the tables on the terminal."""
    from rich.console import Console
    from rich.table import Table as RichTable

    console = Console()
    if not console.is_terminal:
        console = Console(width=160)  # wide enough that a log shows whole lines
    for entry in merged(tables):
        shown = RichTable(title=caption(entry, tables[0]["task"]), title_justify="left", title_style="")
        for i, column in enumerate(entry["columns"]):
            shown.add_column(column, justify="left" if i == 0 else "right", no_wrap=True)
        for row in entry["rows"]:
            shown.add_row(*row)
        console.print(shown)
        for line in entry["notes"]:
            console.print(line, soft_wrap=True, highlight=False)


def markdown(tables: list[Table]) -> str:
    """The tables as Markdown."""
    parts = []
    for entry in merged(tables):
        lines = [
            f"**{caption(entry, tables[0]['task'])}**",
            "",
            markdown_table(entry["columns"], entry["rows"]),
            *(line for note in entry["notes"] for line in ("", note)),
        ]
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"


def write_report(task: str, root: Path | str = ".") -> list[Table]:
    """Write reports/<task> and return the tables.

    The report holds the tables, scale.md, runtime.md, the first run's plots and figures, and the card of every store in
    cards/seed<k>-rank<r>-<split>.
    """
    from ocd_core.report.run_plots import plot_curves, plot_layer_scores
    from ocd_core.report.run_scale import scale_markdown
    from ocd_core.report.run_times import runtime_markdown
    from ocd_core.report.store_card import write_card
    from ocd_core.report.store_plots import plot_store

    tables = run_tables(task, root)
    first = tables[0]
    run = Artifacts(task, first["seed"], first["rank"], Path(root))
    pictures = run.need(run.pictures, "illustrate")
    run.report.mkdir(parents=True, exist_ok=True)
    write_text(run.report / "table.md", markdown(tables))
    write_json(run.report / "table.json", tables)
    runs = [Artifacts(task, table["seed"], table["rank"], Path(root)) for table in tables]
    write_text(run.report / "scale.md", scale_markdown(runs))
    write_text(run.report / "runtime.md", runtime_markdown(runs))
    for each in runs:
        for split in SPLITS:
            if each.overfit(split).exists():
                write_card(each.overfit(split), run.report / "cards" / f"seed{each.seed}-rank{each.rank}-{split}")
    plot_layer_scores(run.layers / "scores.tsv", run.layers / "convergence.tsv", run.report / "layer_scores.png")
    plot_curves(run, run.report / "curves.png")
    plot_store(run.overfit("test"), run.report / "overfit_test.png")
    for picture in sorted(pictures.iterdir()):
        if picture.is_file() and picture.name not in ("config.json", "manifest.json"):
            replace_file(run.report / picture.name, partial(shutil.copyfile, picture))
    return tables
