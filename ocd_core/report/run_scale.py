"""How well the scale networks of a task's runs estimate ρ, as Markdown: reports/<task>/scale.md."""

import statistics
from collections.abc import Sequence

from ocd_core.artifacts import Artifacts, read_json, read_table
from ocd_core.report.by_rank import page_by_rank
from ocd_core.report.markdown import as_text, markdown_table
from ocd_core.scale.network import UNUSED

_COLUMNS = {  # column of comparison.tsv: (title, decimals)
    "median_abs_log_ratio": ("median abs. ln(ρ̂/ρ) ↓", 2),
    "rank_correlation": ("rank correlation ↑", 2),
    "eq8_db": ("Eq. 8, dB ↓", 2),
}
_ABOUT = """# Estimates of ρ = ‖Δ‖

On validation samples. No estimate was fitted to them, but the network's best update was chosen on them. A median of
|ln(ρ̂/ρ)| of 0.69 is a factor of two. Eq. 8's loss is 0 dB for ρ̂ = 0, which leaves the base network as it is.
"""


def scale_markdown(runs: Sequence[Artifacts]) -> str:
    """One table per layer rank; with several seeds, the mean ± the standard deviation over seeds.

    Instead of a table, a rank without scale networks has the reason.

    Raises:
        UserError: a run has no `comparison.tsv` of train_scale.
    """
    return page_by_rank(_ABOUT, runs, _table)


def _table(runs: list[Artifacts]) -> str:
    columns = ["estimate", "samples", "n", *(title for title, _ in _COLUMNS.values())]
    tables = [_read(run) for run in runs]
    if not any(tables):
        why = str(read_json(runs[0].scale / "metrics.json")[UNUSED])
        return f"No scale network, because {as_text(why)}.\n"
    rows = []
    for entries in zip(*tables, strict=True):
        counts = sorted({int(e["n"]) for e in entries})
        row = [
            entries[0]["estimate"],
            entries[0]["rows"],
            str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}",
            *(_cell([e[name] for e in entries], decimals) for name, (_, decimals) in _COLUMNS.items()),
        ]
        rows.append(row)
    return f"{markdown_table(columns, rows, text_columns=2)}\n"


def _read(run: Artifacts) -> list[dict[str, str]]:
    return read_table(run.need(run.scale / "comparison.tsv", "train_scale"))


def _cell(values: list[str], decimals: int) -> str:
    """A dash if the value is undefined for any seed."""
    if not all(values):
        return "–"
    numbers = [float(v) for v in values]
    mean = f"{statistics.mean(numbers):.{decimals}f}"
    return mean if len(numbers) == 1 else f"{mean} ± {statistics.stdev(numbers):.{decimals}f}"
