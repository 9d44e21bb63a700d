"""A task's report as one page that opens offline: reports/<task>/index.html.

It shows what the Markdown files beside it hold, and the plots, for readers who have seen nothing else of the project.
"""

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from ocd_core._version import __version__
from ocd_core.artifacts import Artifacts, read_json
from ocd_core.params_files import flat
from ocd_core.probing.diagnosis import PICTURE, VERDICT
from ocd_core.provenance import listed_bytes, read_manifest
from ocd_core.report.page import (
    Block,
    Details,
    Links,
    Markdown,
    Picture,
    Section,
    Table,
    figure_picture,
    file_picture,
    html_page,
)
from ocd_core.report.results import Merged
from ocd_core.report.run_costs import costs_table
from ocd_core.report.run_layers import layers_blocks
from ocd_core.report.run_memorisation import memorisation_blocks
from ocd_core.report.run_samples import reliability_figure, samples_blocks
from ocd_core.report.run_summary import about, differences_figure, in_short, legend
from ocd_core.report.run_tables import heading, markdown
from ocd_core.terminal import code_text

_LINE = 6  # items of a list in a line of the params
_PACKAGES = ("torch", "numpy", "scipy", "zarr", "diffusers", "scikit-learn", "torchmetrics")
_TRAINING = (
    "The losses of each training, by epoch or by update. Of each, the weights with the best validation loss are kept; "
    "it stops early if that has not improved for a while."
)
_BEFORE = (
    "What could be said before any diffusion model was trained, from training and validation samples alone: whether Δ "
    "that simple regressions predict help."
)
_WEIGHTS = (
    "Each training, validation and test sample has its own Δ: the base network overfitted to that sample alone. The "
    "plot is of the test samples, whose Δ are the bound; ρ is the norm of Δ."
)


@dataclass(frozen=True)
class Contents:
    """What the page shows: the first run with its results, and the texts of the Markdown files.

    folder: where the plots are. stores: (text, path beside the page) of each store's page or card.
    """

    folder: Path
    runs: Sequence[Artifacts]
    entries: Sequence[Merged]
    scale: str
    runtime: str
    paper: str | None = None
    stores: Sequence[tuple[str, str]] = field(default_factory=list)


def run_page(contents: Contents) -> str:
    """The page as HTML."""
    run, entry = contents.runs[0], contents.entries[0]
    pictures = _pictures(run)
    known = _diagnoses(contents.runs)
    said = _verdicts(known)
    sections = [
        Section("Verdict", [Markdown(text) for text in (in_short(entry), said) if text]),
        Section("What was done", [Markdown(about(run, entry))]),
        Section("Results", _results(contents)),
        *([] if contents.paper is None else [Section("Beside the paper", [Markdown(_body(contents.paper))])]),
        *_diagnosis(known),
        *_section("Samples", [*pictures, *samples_blocks(run, entry.tables[0], shown=not pictures)]),
        *_calibration(run, entry),
        Section("Layers", layers_blocks(run, _plot(contents, "layer_scores.png", "scores of the layers"))),
        Section("Training", [Markdown(_TRAINING), *_plot(contents, "curves.png", "training and validation losses")]),
        Section(
            "Weight changes",
            [
                Markdown(_WEIGHTS),
                *_plot(contents, "overfit_test.png", "norms and losses of the test samples' Δ, and some Δ as images"),
                Markdown(contents.scale),
                *_stores(contents),
            ],
        ),
        *_section("Memorisation", memorisation_blocks(run)),
        Section("Cost", [Markdown(_body(contents.runtime)), costs_table(run, entry)]),
        Section("Environment and config", _environment(run)),
    ]
    return html_page(f"OCD: {run.task}", _lead(entry), sections, contents=True)


def _lead(entry: Merged) -> str:
    """What the page is about, in one line."""
    seeds = ", ".join(map(str, entry.seeds))
    count, layer = entry.results[0].n, code_text(entry.tables[0]["layer"])
    return (
        "Learning to Overfit with Conditional Diffusion Models: layer "
        f"`{layer}`, {count:,} test samples, seed{'s' if len(entry.seeds) > 1 else ''} {seeds}"
    )


def _diagnoses(runs: Sequence[Artifacts]) -> dict[int, tuple[str, Path]]:
    """{seed: the diagnosis in Markdown, and its folder}, of the seeds that have one."""
    found = {run.seed: run.diagnosis for run in runs}
    return {
        seed: ((folder / VERDICT).read_text(encoding="utf-8"), folder)
        for seed, folder in found.items()
        if (folder / VERDICT).is_file()
    }


def _verdicts(known: Mapping[int, tuple[str, Path]]) -> str:
    """What the diagnoses of the seeds said beforehand, in a sentence; empty if there are none."""
    said = [
        (f"with seed {seed}, " if len(known) > 1 else "") + text.strip().split("\n")[0]
        for seed, (text, _) in known.items()
    ]
    return f"Before the diffusion model was trained, the diagnosis said: {'; '.join(said)}" if said else ""


def _diagnosis(known: Mapping[int, tuple[str, Path]]) -> list[Section]:
    """What the diagnoses of the seeds stand on, if they have been made."""
    blocks: list[Block] = [Markdown(_BEFORE)] if known else []
    for seed, (text, folder) in known.items():
        name = f"**Seed {seed}**: " if len(known) > 1 else ""
        blocks.append(Markdown(name + text))
        path = folder / PICTURE
        picture = file_picture(PICTURE, path.read_bytes(), "gains by layer") if path.is_file() else None
        blocks += [] if picture is None else [picture]
    return _section("Diagnosis", blocks)


def _section(title: str, blocks: Sequence[Block]) -> list[Section]:
    """The section, if it has anything."""
    return [Section(title, blocks)] if blocks else []


def _results(contents: Contents) -> list[Block]:
    entry = contents.entries[0]
    figure = differences_figure(entry)
    measures = [(heading(m), m["about"]) for m in entry.tables[0]["metrics"] if m.get("about")]
    return [
        *([] if figure is None else [figure_picture(figure, "differences of all rows from the base")]),
        Markdown(markdown(list(contents.entries))),
        Details("What the rows are", [Table(("row", "what it is"), legend(entry))]),
        *([Details("What the columns are", [Table(("column", "what it is"), measures)])] if measures else []),
    ]


def _calibration(run: Artifacts, entry: Merged) -> list[Section]:
    figure = reliability_figure(run, entry.tables[0])
    if figure is None:
        return []
    text = (
        "Of the test samples whose answer had a certain probability, the share that was right "
        f"(seed {run.seed}). On the dashed line, a network is as sure as it should be; below it, too sure. The size of "
        "a dot is the number of samples."
    )
    return [Section("Calibration", [Markdown(text), figure_picture(figure, "reliability diagrams")])]


def _pictures(run: Artifacts) -> list[Picture]:
    """The domain's own figures."""
    known = [
        file_picture(name, data, Path(name).stem.replace("_", " "), Path(name).stem.replace("_", " "))
        for name, data in pictures_of(run).items()
    ]
    return [picture for picture in known if picture is not None]


def pictures_of(run: Artifacts) -> dict[str, bytes]:
    """The files that the domain drew, by name: what the stage's manifest lists, since a run may hold other files.

    Raises:
        UserError: one is missing or damaged.
    """
    files = read_manifest(run.pictures)["files"]
    names = [name for name in sorted(files) if name != "config.json" and "/" not in name]
    return {name: listed_bytes(run.pictures, name, files) for name in names}


def _stores(contents: Contents) -> list[Block]:
    return [Markdown("Each store of overfitted weights:"), Links(contents.stores)] if contents.stores else []


def _plot(contents: Contents, name: str, text: str) -> list[Block]:
    path = contents.folder / name
    picture = file_picture(name, path.read_bytes(), text) if path.is_file() else None
    return [] if picture is None else [picture]


def _environment(run: Artifacts) -> list[Block]:
    rows = [("ocd-core", __version__), ("Python", platform.python_version()), ("system", platform.platform())]
    for name in _PACKAGES:
        try:
            rows.append((name, version(name)))
        except PackageNotFoundError:
            continue
    config = flat(read_json(run.evaluation / "config.json"))
    return [
        Markdown("Where this report was written; what a stage took is under Cost."),
        Table(("package", "version"), rows),
        Details(
            f"All params of seed {run.seed}, rank {run.rank}",
            [Table(("param", "value"), [line for key, value in config.items() for line in _param(key, value)])],
        ),
    ]


def _param(key: str, value: object) -> list[tuple[str, str]]:
    """The lines of a param; a long list has several, because a narrow screen shows one as a tall row."""
    if not isinstance(value, list) or len(value) <= _LINE:
        return [(key, str(value))]
    parts = [value[start : start + _LINE] for start in range(0, len(value), _LINE)]
    return [(f"{key}[{_LINE * i}:{_LINE * i + len(part)}]", ", ".join(map(str, part))) for i, part in enumerate(parts)]


def _body(text: str) -> str:
    """A Markdown page without its title."""
    lines = text.splitlines()
    return "\n".join(lines[1:] if lines and lines[0].startswith("# ") else lines)
