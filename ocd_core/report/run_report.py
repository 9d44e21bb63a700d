"""A task's whole report: reports/<task>."""

import shutil
from functools import partial
from pathlib import Path

from ocd_core.artifacts import Artifacts, write_json, write_text
from ocd_core.files import replace_file
from ocd_core.report.paper_page import paper_markdown
from ocd_core.report.paper_tables import paper_task
from ocd_core.report.preset_costs import presets_not_run
from ocd_core.report.results import Merged, Table, merged_results, preset_tables, run_tables
from ocd_core.report.run_plots import plot_curves, plot_layer_scores
from ocd_core.report.run_scale import scale_markdown
from ocd_core.report.run_tables import markdown
from ocd_core.report.run_times import runtime_markdown
from ocd_core.report.store_card import write_card
from ocd_core.report.store_plots import plot_store
from ocd_core.samples import SPLITS
from ocd_core.timing import read_seconds


def write_report(task: str, root: Path | str = ".") -> list[Merged]:
    """Write reports/<task> and return the tables.

    The report holds the tables, results.json (their numbers, see `ocd_core.evaluation.result`), paper.md (if the paper
    has the task's data set), scale.md, runtime.md, the first run's plots and figures, and the card of every store in
    cards/seed<k>-rank<r>-<split>.
    """
    tables = [_with_seconds(table, root) for table in run_tables(task, root)]
    first = tables[0]
    run = Artifacts(task, first["seed"], first["rank"], Path(root))
    pictures = run.need(run.pictures, "illustrate")
    run.report.mkdir(parents=True, exist_ok=True)
    presets = preset_tables(task, root)
    entries = merged_results(tables, presets)
    write_text(run.report / "table.md", markdown(entries))
    write_json(
        run.report / "results.json",
        [
            {
                "task": task,
                "rank": entry.rank,
                "seeds": entry.seeds,
                "results": [r.model_dump() for r in entry.results],
                "absent": [a.model_dump() for a in entry.absent],
            }
            for entry in entries
        ],
    )
    compared = paper_task(task)
    if compared is not None:  # counting a preset's operations takes seconds
        write_text(run.report / "paper.md", paper_markdown(entries[0], compared, presets_not_run(run, {*presets})))
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
    return entries


def _with_seconds(table: Table, root: Path | str) -> Table:
    """A run's table with the time that each row takes to answer, where it is known."""
    record = read_seconds(Artifacts(table["task"], table["seed"], table["rank"], Path(root)), "evaluate")
    seconds = {} if record is None else record["rows"]
    return {**table, "results": [{**r, "seconds": seconds.get(r["row"])} for r in table["results"]]}
