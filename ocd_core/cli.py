"""The `ocd` command: run tasks, inspect stores and reports, and predict with a trained run."""

import json
import shutil
import sys
from collections import Counter
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ocd_core import __version__, task_commands
from ocd_core.errors import UserError
from ocd_core.files import replace_file
from ocd_core.places import Place
from ocd_core.task_commands import JsonOption
from ocd_core.terminal import errors_as_lines, plain, printable_json

if TYPE_CHECKING:
    from ocd_core.tasks.base import Task

app = typer.Typer(no_args_is_help=True, help="Run tasks of the OCD pipeline, and inspect and use their results.")
_debug = False

StoreArgument = Annotated[str, typer.Argument(help="An overfit store: a folder <split>.zarr or an fsspec URL.")]


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"ocd {__version__}")
        raise typer.Exit


@app.callback()
def options(
    context: typer.Context,
    root: Annotated[
        Path | None, typer.Option(help="The folder that holds params/ (default: the nearest one upwards).")
    ] = None,
    debug: Annotated[bool, typer.Option("--debug", help="Show where an error comes from.")] = False,
    _: Annotated[
        bool, typer.Option("--version", help="Print the version.", callback=_print_version, is_eager=True)
    ] = False,
) -> None:
    """Options of every command, in front of its name."""
    global _debug
    _debug = debug
    context.obj = Place.enter(root)


task_commands.add_to(app)


@app.command()
def inspect(
    context: typer.Context,
    store: StoreArgument,
    sample: Annotated[int | None, typer.Option(help="Show one row in full.")] = None,
    out: Annotated[Path | None, typer.Option(help="Write a plot of the store, a PNG.")] = None,
    html: Annotated[Path | None, typer.Option(help="Write a page about the whole store that opens offline.")] = None,
) -> None:
    """Summarise an overfit store: tables on the terminal, and optionally a plot and a page."""
    from ocd_core.artifacts import write_text
    from ocd_core.drawing import save_figure
    from ocd_core.report.store_page import store_page
    from ocd_core.report.store_plots import overview_figure
    from ocd_core.report.store_terminal import print_store
    from ocd_core.store import OverfitStore
    from ocd_core.store.summary import read_rows

    place: Place = context.obj
    opened = OverfitStore(place.given(store))
    out, html = (None if path is None else place.new(path) for path in (out, html))
    if sample is not None and not 0 <= sample < len(opened):
        raise UserError(f"--sample {sample}: the store has rows 0 to {len(opened) - 1}")
    for path in (out, html):
        if path is not None and path.is_dir():
            raise UserError(f"{path} is a folder; name a file")
    values = read_rows(opened)
    # files first: printing ends early if the output goes to a command such as head
    if out is not None:
        save_figure(overview_figure(opened, values, sample), out)
    if html is not None:
        write_text(html, store_page(opened, values))
    print_store(opened, values, sample)
    if out is not None:
        print(f"plot: {out}")
    if html is not None:
        print(f"page: {html}")


@app.command()
def export(
    context: typer.Context,
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

    place: Place = context.obj
    source, dest = place.given(source), dest if "://" in dest else str(place.new(Path(dest)))
    base = None if base is None else Path(place.given(str(base)))
    if is_run(source):
        if base is not None:
            raise UserError("--base is for stores; a run has its own base network")
        sizes = [file.bytes for file in export_run(source, dest).files.values()]
    else:
        sizes = [file["bytes"] for file in export_store(source, dest, base)["files"].values()]
    print(f"{dest}: {len(sizes)} files, {sum(sizes) / 1e6:.1f} MB")


@app.command()
def verify(
    context: typer.Context,
    path: Annotated[
        str,
        typer.Argument(
            help="A store (a folder <split>.zarr or an fsspec URL), a stage's folder, a run "
            "data/<task>/seed<k>/rank<r>, a report, a bundle or an export."
        ),
    ],
    as_json: JsonOption = False,
) -> None:
    """Check every file and name what is damaged; exit with status 1 if anything is."""
    from ocd_core.verify import verify as problems_at

    problems = problems_at(context.obj.given(path))
    if as_json:
        damages = [{"what": problem.what, "remedy": problem.remedy} for problem in problems]
        print(json.dumps({"path": path, "damages": damages}))
    for problem in () if as_json else problems:
        print(plain(problem.what))
    if problems:
        count = f"{len(problems)} damaged part{'s' if len(problems) > 1 else ''}"
        raise UserError(f"{path} has {count}; {'; '.join(dict.fromkeys(problem.remedy for problem in problems))}")
    if not as_json:
        print(f"{path} is whole")


@app.command()
def predict(
    context: typer.Context,
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
    force: Annotated[bool, typer.Option(help="Overwrite files in it that exist.")] = False,
) -> None:
    """Predict with weights drawn for each input, and print one JSON object per input."""
    import torch

    from ocd_core.artifacts import Artifacts
    from ocd_core.params_files import task_names
    from ocd_core.predictor import Predictor
    from ocd_core.samples import is_finite, one_sample

    place: Place = context.obj
    out, inputs = place.new(out), [Path(place.given(str(path))) for path in inputs]
    if not out.is_dir():
        raise UserError(f"--out {out} is not a folder")
    names = Counter(path.stem for path in inputs)
    if twice := [name for name, count in names.items() if count > 1]:
        raise UserError(f"{names[twice[0]]} inputs are named {twice[0]!r}, so their answers would be one file")
    if "/" not in task and ((Path("data") / task).is_dir() or task in task_names()):
        predictor = Predictor.from_artifacts(
            Artifacts(task, seed, rank).rank_dir, trust_remote_code=trust_remote_code, tuned=tuned
        )
    else:
        predictor = Predictor.from_pretrained(place.given(task), trust_remote_code=trust_remote_code, tuned=tuned)
    for path in inputs:
        if not path.exists():
            raise UserError(f"{path} does not exist")
        result = predictor.predict(predictor.task.read_input(path), draws, sample_id=torch.zeros(1, dtype=torch.int64))
        output = one_sample(result.output, 0)
        if not (is_finite(result.output) and is_finite(result.base_output)):
            raise UserError(f"{path}: the network's answer holds NaN or infinity; are the input's values extreme?")
        line = {
            "input": str(path),
            "ocd": predictor.task.describe_output(output),
            "base": predictor.task.describe_output(one_sample(result.base_output, 0)),
            "draws": draws,
        }
        if files := _output_files(predictor.task, output, out, path.stem, force):
            line["files"] = [str(file) for file in files]
        if result.rho is not None:
            line["rho"] = float(result.rho[0])
        print(printable_json(line, ascii_only=(sys.stdout.encoding or "").lower() != "utf-8"))


def _output_files(task: "Task", output: Any, out: Path, name: str, force: bool) -> list[Path]:
    """What the task writes of an output, in `out`; a user's own recordings may have the same names."""
    with TemporaryDirectory() as folder:
        found = {out / path.name: path for path in task.write_output(output, Path(folder), name)}
        if not force and (there := [dest for dest in found if dest.exists()]):
            raise UserError(f"{there[0]} already exists; give --force to overwrite it, or another folder with --out")
        for dest, path in found.items():
            replace_file(dest, partial(shutil.copyfile, path))
    return list(found)


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
    text = plain((folder / VERDICT).read_text(encoding="utf-8"))
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
    context: typer.Context,
    runs: Annotated[
        list[str], typer.Argument(help="Runs, data/<task>/seed<k>/rank<r>, or DVC experiments; at least two.")
    ],
    html: Annotated[Path | None, typer.Option(help="Also write a page that opens offline.")] = None,
    as_json: JsonOption = False,
) -> None:
    """Lay runs side by side: every row's first metric, and the params that differ."""
    from ocd_core.artifacts import write_text
    from ocd_core.report.comparison import as_plain, comparison_page, print_comparison, read_runs

    found = read_runs([context.obj.given(run) for run in runs])
    if as_json:
        print(json.dumps(as_plain(found)))
    else:
        print_comparison(found)
    if html is not None:
        html = context.obj.new(html)
        write_text(html, comparison_page(found))
        print(f"page: {html}", file=sys.stderr if as_json else sys.stdout)


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
    with errors_as_lines(lambda: _debug):
        app()
