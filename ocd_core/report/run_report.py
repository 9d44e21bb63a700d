"""A task's whole report: reports/<task>."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from ocd_core._version import __version__
from ocd_core.artifacts import Artifacts, replaced_folder, write_json, write_text
from ocd_core.config import trusted
from ocd_core.errors import UserError
from ocd_core.files import replace_file
from ocd_core.pipeline import maker
from ocd_core.provenance import AGAIN, MANIFEST, PAGE, TIMED, check_files, content, write_report_manifests
from ocd_core.report.paper_page import paper_markdown
from ocd_core.report.paper_tables import paper_task
from ocd_core.report.preset_costs import presets_not_run
from ocd_core.report.results import Merged, Table, merged_results, preset_tables, run_tables
from ocd_core.report.run_page import Contents, pictures_of, run_page
from ocd_core.report.run_plots import plot_curves, plot_layer_scores
from ocd_core.report.run_scale import scale_markdown
from ocd_core.report.run_tables import markdown
from ocd_core.report.run_times import runtime_markdown
from ocd_core.report.store_card import write_card
from ocd_core.report.store_page import store_page
from ocd_core.report.store_plots import plot_store
from ocd_core.samples import SPLITS
from ocd_core.store import OverfitStore
from ocd_core.timing import read_seconds
from ocd_core.weights import described_by

_READ = ("prepared", "base", "layers", "diffusion", "scale", "controls", "evaluation", "pictures")
_IF_MADE = ("diagnosis",)
# what the report writes itself, which no picture may replace
_OWN = {
    "table.md", "results.json", "paper.md", "scale.md", "runtime.md", "layer_scores.png", "curves.png",
    "overfit_test.png", "cards", MANIFEST, PAGE, *TIMED,
}  # fmt: skip


def write_report(task: str, root: Path | str = ".") -> list[Merged]:
    """Write reports/<task> and return the tables.

    The report is one page, index.html (see `ocd_core.report.run_page`). Beside it are the tables, results.json (their
    numbers, see `ocd_core.evaluation.result`), paper.md (if the paper has the task's data set), scale.md, runtime.md,
    the first run's plots and figures, and the card of every store in cards/seed<k>-rank<r>-<split>; those of the first
    run have a page. manifest.json, written last, has the sha256 of every file but those that hold times
    (index.html, runtime.md), whose are in page.json.

    Raises:
        UserError: the task has no evaluated run, or something of a run is missing or damaged.
    """
    with trusted(task, root, str(Artifacts(task, root=Path(root)).task_dir)):  # a run may come from a stranger
        tables = [_with_seconds(table, root) for table in run_tables(task, root)]
        runs = [Artifacts(task, table["seed"], table["rank"], Path(root)) for table in tables]
        for read in runs:
            _check(read)
        with replaced_folder(runs[0].report) as dest, described_by(runs[0].task_dir, AGAIN):
            return _write(dest, runs, tables, preset_tables(task, root))


def _write(
    dest: Path, runs: Sequence[Artifacts], tables: Sequence[Table], presets: dict[str, list[Table]]
) -> list[Merged]:
    run, entries = runs[0], merged_results(tables, presets)
    write_text(dest / "table.md", markdown(entries))
    write_json(
        dest / "results.json",
        [
            {
                "task": run.task,
                "rank": entry.rank,
                "seeds": entry.seeds,
                # without times, which differ from run to run: DVC keeps this file
                "results": [r.model_copy(update={"seconds": None}).model_dump() for r in entry.results],
                "absent": [a.model_dump() for a in entry.absent],
            }
            for entry in entries
        ],
    )
    compared, paper = paper_task(run.task), None
    if compared is not None:  # counting a preset's operations takes seconds
        paper = paper_markdown(entries[0], compared, presets_not_run(run, {*presets}))
        write_text(dest / "paper.md", paper)
    scale, runtime = scale_markdown(runs), runtime_markdown(runs)
    write_text(dest / "scale.md", scale)
    write_text(dest / "runtime.md", runtime)
    stores = _cards(runs, dest)
    plot_layer_scores(run.layers / "scores.tsv", run.layers / "convergence.tsv", dest / "layer_scores.png")
    plot_curves(run, dest / "curves.png")
    plot_store(run.overfit("test"), dest / "overfit_test.png")
    for name, data in pictures_of(run).items():
        if name.lower() in _OWN:
            raise UserError(f"{run.pictures / name} has the name of a file of the report; call the picture otherwise")
        replace_file(dest / name, partial(_write_bytes, data))
    write_text(dest / "index.html", run_page(Contents(dest, runs, entries, scale, runtime, paper, stores)))
    shown = {read.name_in_task("evaluation"): content(read, "evaluation") for read in runs}
    write_report_manifests(dest, {"stage": "report", "params": {}, "code": __version__, "inputs": shown})
    return entries


def _write_bytes(data: bytes, path: Path) -> None:
    path.write_bytes(data)


def _check(run: Artifacts) -> None:
    """Check the folders that a report reads; stores are checked as they are read."""
    for name in (*_READ, *(name for name in _IF_MADE if run.path(name).exists())):
        stage = maker(name)
        check_files(run.need(run.path(name), stage), f"run '{run.command(stage)}'", stage)


def _cards(runs: Sequence[Artifacts], report: Path) -> list[tuple[str, str]]:
    """Write each store's card, and the pages of the first run's; returns links to them."""
    links = []
    for run in runs:
        for split in SPLITS:
            if run.overfit(split).exists():
                name = f"cards/seed{run.seed}-rank{run.rank}-{split}"
                write_card(run.overfit(split), report / name)
                if run is runs[0]:  # a page takes seconds
                    write_text(report / name / "index.html", store_page(OverfitStore(run.overfit(split))))
                page = "index.html" if run is runs[0] else "README.md"
                links.append((f"{split}, seed {run.seed}, rank {run.rank}", f"{name}/{page}"))
    return links


def _with_seconds(table: Table, root: Path | str) -> Table:
    """A run's table with the time that each row takes to answer, where it is known."""
    record = read_seconds(Artifacts(table["task"], table["seed"], table["rank"], Path(root)), "evaluate")
    seconds = {} if record is None else record["rows"]
    return {**table, "results": [{**r, "seconds": seconds.get(r["row"])} for r in table["results"]]}
