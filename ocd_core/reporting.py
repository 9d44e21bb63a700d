"""Tables of a task's runs, for the terminal and for reports/<task>/."""

import statistics
from collections import defaultdict
from pathlib import Path
from typing import Any

from ocd_core.artifacts import Artifacts, read_json, write_json, write_text
from ocd_core.errors import UserError

Table = dict[str, Any]


def run_tables(task: str, root: Path | str = ".") -> list[Table]:
    """`table.json` of every evaluated run of a task, by rank and seed.

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
    """One run: value and 95 % interval over samples. Several seeds: mean ± SD over seeds."""
    found = [e[metric["name"]] for e in entries]
    if len(found) == 1:
        value, low, high = (_number(found[0][k], metric) for k in ("value", "low", "high"))
        return f"{value} [{low}, {high}]"
    values = [e["value"] for e in found]
    return f"{_number(statistics.mean(values), metric)} ± {_number(statistics.stdev(values), metric)}"


def heading(metric: dict[str, Any]) -> str:
    """A metric's column title, with its unit and which way is better."""
    unit = f" {metric['unit']}" if metric["unit"] else ""
    return f"{metric['name'].replace('_', ' ')}{unit} {'↑' if metric['higher_is_better'] else '↓'}"


def merged(tables: list[Table]) -> list[dict[str, Any]]:
    """One entry a rank: its layers, seeds, metrics and rows of formatted cells."""
    by_rank: dict[int, list[Table]] = defaultdict(list)
    for table in tables:
        by_rank[table["rank"]].append(table)
    result = []
    for rank, group in by_rank.items():
        metrics = group[0]["metrics"]
        rows = []
        for i, row in enumerate(group[0]["rows"]):
            entries = [table["rows"][i] for table in group]
            rows.append([row["title"], str(row["n"]), *(_cell(entries, m) for m in metrics)])
        result.append(
            {
                "rank": rank,
                "layers": sorted({t["layer"] for t in group}),
                "seeds": [t["seed"] for t in group],
                "columns": ["method", "samples", *(heading(m) for m in metrics)],
                "rows": rows,
            }
        )
    return result


def caption(entry: dict[str, Any], task: str) -> str:
    """What a merged table shows."""
    seeds = entry["seeds"]
    spread = "[95 % bootstrap interval over test samples]" if len(seeds) == 1 else "± SD over seeds"
    names = ", ".join(map(str, seeds))
    layers = ", ".join(entry["layers"])
    return f"{task}, layer {layers} (rank {entry['rank']}), seed{'s' if len(seeds) > 1 else ''} {names}: {spread}"


def print_tables(tables: list[Table]) -> None:
    """Show the tables on the terminal."""
    from rich.console import Console
    from rich.table import Table as RichTable

    console = Console()
    if not console.is_terminal:
        console = Console(width=120)  # nothing is cut in a log
    for entry in merged(tables):
        shown = RichTable(title=caption(entry, tables[0]["task"]), title_justify="left", title_style="")
        for i, column in enumerate(entry["columns"]):
            shown.add_column(column, justify="left" if i == 0 else "right", no_wrap=True)
        for row in entry["rows"]:
            shown.add_row(*row)
        console.print(shown)


def markdown(tables: list[Table]) -> str:
    """The tables as Markdown."""
    parts = []
    for entry in merged(tables):
        lines = [
            f"**{caption(entry, tables[0]['task'])}**",
            "",
            "| " + " | ".join(entry["columns"]) + " |",
            "| " + " | ".join(["---", *["---:"] * (len(entry["columns"]) - 1)]) + " |",
            *("| " + " | ".join(row) + " |" for row in entry["rows"]),
        ]
        parts.append("\n".join(lines))
    return "\n\n".join(parts) + "\n"


def write_report(task: str, root: Path | str = ".") -> list[Table]:
    """Write reports/<task>: table.md, table.json and pictures; returns the tables."""
    from ocd_core.plots import plot_curves, plot_layer_scores
    from ocd_core.store_plots import plot_store

    tables = run_tables(task, root)
    first = tables[0]
    run = Artifacts(task, first["seed"], first["rank"], Path(root))
    run.report.mkdir(parents=True, exist_ok=True)
    write_text(run.report / "table.md", markdown(tables))
    write_json(run.report / "table.json", tables)
    plot_layer_scores(run.layers / "scores.tsv", run.report / "layer_scores.png")
    plot_curves(run, run.report / "curves.png")
    plot_store(run.overfit("test"), run.report / "overfit_test.png")
    return tables
