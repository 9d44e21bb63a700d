"""The `ocd` command: inspect tasks, stores and reports, and predict with a trained run."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from ocd_core.errors import UserError
from ocd_core.terminal import errors_as_lines

app = typer.Typer(no_args_is_help=True, add_completion=False, help="Inspect and use the results of the OCD pipeline.")

StoreArgument = Annotated[str, typer.Argument(help="An overfit store: a folder <split>.zarr or an fsspec URL.")]


@app.command()
def tasks() -> None:
    """List the tasks that have a params file here, and the domains that are installed."""
    from rich.console import Console
    from rich.table import Column, Table

    from ocd_core.config import load_params
    from ocd_core.params_files import task_names
    from ocd_core.tasks import domain_names

    names = task_names()
    if not names:
        raise UserError(
            f"{Path.cwd()} has no params/<task>.yaml; go to the folder that holds params/ (in a copy of the "
            f"repository, its top). Domains that are installed: {', '.join(sorted(domain_names()))}"
        )
    heads = ("task", "domain", "base network", "layer", "params")
    table = Table(*(Column(head, overflow="fold") for head in heads), box=None)  # a narrow terminal cuts no name
    for name in names:
        try:
            params = load_params(name)
        except UserError as error:
            table.add_row(name, "?", "?", "?", str(error))
            continue
        table.add_row(name, params.domain, params.base.model.name, params.layer.select, f"params/{name}.yaml")
    console = Console()
    if not console.is_terminal:
        console = Console(width=400)  # a log or a pipe shows whole names
    console.print(table)
    console.print(f"\ndomains: {', '.join(sorted(domain_names()))}")


@app.command()
def inspect(
    store: StoreArgument,
    sample: Annotated[int | None, typer.Option(help="Show one row in full.")] = None,
    out: Annotated[Path | None, typer.Option(help="Where to write the plot (default: <split>.png here).")] = None,
    html: Annotated[Path | None, typer.Option(help="Write a page about the whole store that opens offline.")] = None,
) -> None:
    """Summarise an overfit store: tables on the terminal, a plot, and optionally a page."""
    from ocd_core.artifacts import write_text
    from ocd_core.drawing import save_figure
    from ocd_core.report.store_page import store_page
    from ocd_core.report.store_plots import overview_figure
    from ocd_core.report.store_terminal import print_store
    from ocd_core.store import OverfitStore
    from ocd_core.store.summary import read_rows

    opened = OverfitStore(store)
    if sample is not None and not 0 <= sample < len(opened):
        raise UserError(f"--sample {sample}: the store has rows 0 to {len(opened) - 1}")
    plot = out or Path(f"{Path(store).stem}.png")
    for path in (plot, html):
        if path is not None and path.is_dir():
            raise UserError(f"{path} is a folder; name a file")
    values = read_rows(opened)
    # files first: printing ends early if the output goes to a command such as head
    save_figure(overview_figure(opened, values, sample), plot)
    if html is not None:
        write_text(html, store_page(opened, values))
    print_store(opened, values, sample)
    print(f"plot: {plot}")
    if html is not None:
        print(f"page: {html}")


@app.command()
def export(
    source: Annotated[
        str, typer.Argument(help="A run, data/<task>/seed<k>/rank<r>, or an overfit store (a folder or an fsspec URL).")
    ],
    dest: Annotated[str, typer.Argument(help="A folder or fsspec URL that does not exist yet.")],
    base: Annotated[
        Path | None, typer.Option(help="The folder of a store's base network (default: the one of the store's run).")
    ] = None,
) -> None:
    """Copy a run as a bundle that predicts anywhere, or a store with its card: completely or not at all."""
    from ocd_core.report.run_export import export_run, is_run
    from ocd_core.report.store_export import export_store

    if is_run(source):
        if base is not None:
            raise UserError("--base is for stores; a run has its own base network")
        sizes = [file.bytes for file in export_run(source, dest).files.values()]
    else:
        sizes = [file["bytes"] for file in export_store(source, dest, base)["files"].values()]
    print(f"{dest}: {len(sizes)} files, {sum(sizes) / 1e6:.1f} MB")


@app.command()
def verify(
    path: Annotated[
        str,
        typer.Argument(
            help="A store (a folder <split>.zarr or an fsspec URL), a stage's folder, a run "
            "data/<task>/seed<k>/rank<r>, a report, a bundle or an export."
        ),
    ],
) -> None:
    """Check every file and name what is damaged; exit with status 1 if anything is."""
    from ocd_core.terminal import plain
    from ocd_core.verify import verify as problems_at

    problems = problems_at(path)
    for problem in problems:
        print(plain(problem.what))
    if problems:
        count = f"{len(problems)} damaged part{'s' if len(problems) > 1 else ''}"
        raise UserError(f"{path} has {count}; {'; '.join(dict.fromkeys(problem.remedy for problem in problems))}")
    print(f"{path} is whole")


@app.command()
def predict(
    task: Annotated[
        str, typer.Argument(help="A task whose pipeline has run here, or a bundle: a folder, URL, hub id or name.")
    ],
    inputs: Annotated[list[Path], typer.Argument(help="Files with one input each, in a format that the task reads.")],
    seed: Annotated[int, typer.Option(help="The seed of the run.")] = 0,
    rank: Annotated[int, typer.Option(help="The layer rank of the run.")] = 1,
    draws: Annotated[int, typer.Option(help="How many networks to draw.")] = 5,
    tuned: Annotated[bool, typer.Option(help="Draw with the tuned diffusion model, if there is one.")] = False,
    trust_remote_code: Annotated[bool, typer.Option(help="Import the code that a bundle or run names.")] = False,
    out: Annotated[Path, typer.Option(help="A folder for outputs that are files (separated voices).")] = Path(),
) -> None:
    """Predict with weights drawn for each input, and print one JSON object per input."""
    import torch

    from ocd_core.artifacts import Artifacts
    from ocd_core.params_files import task_names
    from ocd_core.predictor import Predictor
    from ocd_core.samples import one_sample

    if not out.is_dir():
        raise UserError(f"--out {out} is not a folder")
    if "/" not in task and ((Path("data") / task).is_dir() or task in task_names()):
        predictor = Predictor.from_artifacts(
            Artifacts(task, seed, rank).rank_dir, trust_remote_code=trust_remote_code, tuned=tuned
        )
    else:
        predictor = Predictor.from_pretrained(task, trust_remote_code=trust_remote_code, tuned=tuned)
    for path in inputs:
        if not path.exists():
            raise UserError(f"{path} does not exist")
        result = predictor.predict(predictor.task.read_input(path), draws, sample_id=torch.zeros(1, dtype=torch.int64))
        output = one_sample(result.output, 0)
        line = {
            "input": str(path),
            "ocd": predictor.task.describe_output(output),
            "base": predictor.task.describe_output(one_sample(result.base_output, 0)),
            "draws": draws,
        }
        files = predictor.task.write_output(output, out, path.stem)
        if files:
            line["files"] = [str(file) for file in files]
        if result.rho is not None:
            line["rho"] = float(result.rho[0])
        print(json.dumps(line, ensure_ascii=(sys.stdout.encoding or "").lower() != "utf-8"))


@app.command()
def diagnose(
    task: Annotated[str, typer.Argument(help="A task with a params file here.")],
    seed: Annotated[int, typer.Option(help="The seed of the base network.")] = 0,
) -> None:
    """Say whether OCD can help, in which layer and how much, before any diffusion model is trained.

    What is missing of the base network and the layer scores is made first.
    """
    from rich.console import Console
    from rich.markdown import Markdown

    from ocd_core.probing.diagnosis import PICTURE, VERDICT
    from ocd_core.provenance import Lineage
    from ocd_core.running.runner import run_stages

    lineage = Lineage.of(task, seed)
    run_stages(lineage, ("prepare", "train_base", "score_layers", "diagnose"))
    folder = lineage.artifacts.diagnosis
    text = (folder / VERDICT).read_text(encoding="utf-8")
    console = Console()
    console.print(Markdown(text) if console.is_terminal else text, markup=False, soft_wrap=not console.is_terminal)
    print(f"picture: {folder / PICTURE}")


@app.command()
def report(
    task: Annotated[str, typer.Argument(help="A task whose pipeline has run here.")] = "mnist5k",
    show: Annotated[bool, typer.Option("--open", help="Open the page in a browser.")] = False,
) -> None:
    """Write reports/<task> from the artifacts, and show the table; index.html is the whole report as one page."""
    import webbrowser

    from ocd_core.artifacts import Artifacts
    from ocd_core.report.run_report import write_report
    from ocd_core.report.run_tables import print_tables

    print_tables(write_report(task))
    page = Artifacts(task).report / "index.html"
    print(f"page: {page}")
    if show and not webbrowser.open(page.resolve().as_uri()):
        raise UserError(f"no browser can be started here; open {page} yourself")


@app.command()
def compare(
    runs: Annotated[
        list[str], typer.Argument(help="Runs, data/<task>/seed<k>/rank<r>, or DVC experiments; at least two.")
    ],
    html: Annotated[Path | None, typer.Option(help="Also write a page that opens offline.")] = None,
) -> None:
    """Lay runs side by side: every row's first metric, and the params that differ."""
    from ocd_core.artifacts import write_text
    from ocd_core.report.comparison import comparison_page, print_comparison, read_runs

    found = read_runs(runs)
    print_comparison(found)
    if html is not None:
        write_text(html, comparison_page(found))
        print(f"page: {html}")


@app.command()
def preset(
    name: Annotated[str, typer.Argument(help="paper: the method as printed; released: as in the authors' code.")],
    task: Annotated[str, typer.Argument(help="A task with a params file here.")],
    overrides: Annotated[bool, typer.Option(help="Write nothing; print arguments for 'dvc exp run'.")] = False,
    force: Annotated[bool, typer.Option(help="Overwrite the file if it exists.")] = False,
) -> None:
    """Write params/<task>_<name>.yaml: the task with another method, from overfitting onwards."""
    from ocd_core.presets import apply_preset, override_arguments, write_preset

    _, changes = apply_preset(name, task)
    if overrides:
        print("\n".join(override_arguments(task, changes)))
        return
    path = write_preset(name, task, force=force)
    print(f"{path}: {len(changes)} params differ from {task}'s. To run it, append {path.stem} to tasks in params.yaml")


def main() -> None:
    """Entry point. What a user can mend gives one line on standard error and exit status 1."""
    with errors_as_lines():
        app()
