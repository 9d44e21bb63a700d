"""A task's report as one page that opens offline: reports/<task>/index.html.

It shows what the Markdown files beside it hold, and the plots, for readers who have seen nothing else of the project.
"""

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING

from ocd_core._version import __version__
from ocd_core.artifacts import Artifacts, read_json
from ocd_core.drawing import new_figure
from ocd_core.evaluation.result import Result
from ocd_core.params_files import flat
from ocd_core.probing.diagnosis import PICTURE, VERDICT
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
from ocd_core.report.results import ALTERNATIVE, Merged
from ocd_core.report.row_classes import class_of
from ocd_core.report.run_costs import costs_table
from ocd_core.report.run_layers import layers_blocks
from ocd_core.report.run_memorisation import memorisation_blocks
from ocd_core.report.run_samples import reliability_figure, samples_blocks
from ocd_core.report.run_tables import SIGNIFICANT, heading, markdown, with_unit
from ocd_core.terminal import code_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

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

    stores: (text, path beside the page) of each store's page or card.
    """

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
        Section("Layers", layers_blocks(run, _plot(run, "layer_scores.png", "scores of the layers"))),
        Section("Training", [Markdown(_TRAINING), *_plot(run, "curves.png", "training and validation losses")]),
        Section(
            "Weight changes",
            [
                Markdown(_WEIGHTS),
                *_plot(run, "overfit_test.png", "norms and losses of the test samples' Δ, and some Δ as images"),
                Markdown(contents.scale),
                *_stores(contents),
            ],
        ),
        *_section("Memorisation", memorisation_blocks(run)),
        Section("Cost", [Markdown(_body(contents.runtime)), costs_table(run, entry)]),
        Section("Environment and config", _environment(run)),
    ]
    return html_page(f"OCD: {run.task}", _lead(entry), sections, contents=True)


def about(run: Artifacts, entry: Merged) -> str:
    """What was done, for somebody who does not know the method."""
    config = read_json(run.evaluation / "config.json")
    prepared = read_json(run.prepared / "summary.json")
    splits = prepared.get("splits")
    sizes = [f"{s['samples']:,} to {verb}" for name, verb in (("train", "train"), ("val", "choose"), ("test", "test"))
             if isinstance(splits, dict) and isinstance(s := splits.get(name), dict) and "samples" in s]  # fmt: skip
    data = f" ({', '.join(sizes)}; source: {prepared.get('source', 'see the config')})" if sizes else ""
    layer = code_text(entry.tables[0]["layer"])
    return (
        f"A base network (`{config['base']['model']['name']}`) was trained on the task `{run.task}`{data}. It was then "
        f"overfitted to every single training sample, in the weight of its layer `{layer}` alone, which gives one "
        "weight change Δ per sample. A diffusion model learned to draw Δ from what the base network sees in a sample, "
        "without its label. For a test sample, **OCD draws Δ and answers with the base's weights plus Δ**. The other "
        "rows are controls, which could explain a gain without diffusion. The bound overfits each test sample with its "
        "own label, which no method has; it shows what the layer can express in a few steps."
    )


def in_short(entry: Merged) -> str:
    """One sentence about one draw of OCD, and one about the best row that does not see labels."""
    metric = entry.tables[0]["metrics"][0]
    plain = {row: found[metric["name"], False] for row, found in entry.rows().items()}
    base, drawn = plain["base"], plain.get("ocd")
    name, number = with_unit(metric), f".{metric['decimals']}f"
    if base.mean is None:
        return f"The {name} of the base is not defined."
    lines = [f"The base network's {name} is {base.mean:{number}}."]
    if drawn is not None and drawn.mean is not None:
        lines.append(f"{drawn.title}: **{drawn.mean:{number}}**, {_compared(drawn, metric['higher_is_better'])}.")
    others = [r for row, r in plain.items() if row != "base" and r.mean is not None and not _sees_labels(row)]
    if others and metric["higher_is_better"] is not None:
        sign = 1 if metric["higher_is_better"] else -1
        best = max(others, key=lambda r: sign * (r.mean or 0.0))
        lines.append(
            f"The best row that sees no test label is {best.title}: {best.mean:{number}}, "
            f"{_compared(best, metric['higher_is_better'])}."
        )
    return " ".join(lines)


def _compared(result: Result, higher_is_better: bool | None) -> str:
    """Better or worse than the base, and whether that may be chance."""
    if result.difference is None or result.p_holm is None or higher_is_better is None:
        return "not compared with the base"
    p = "p < .001" if result.p_holm < 0.001 else f"p = {result.p_holm:.3f}"
    if result.p_holm >= SIGNIFICANT and result.seeds > 1:
        return f"not different from the base beyond chance with every seed (largest {p}, corrected)"
    if result.p_holm >= SIGNIFICANT:
        return f"no different from the base beyond chance ({p}, corrected)"
    return f"{'better' if (result.difference > 0) == higher_is_better else 'worse'} than the base ({p}, corrected)"


def _sees_labels(row: str) -> bool:
    found = class_of(row)
    return found is not None and bool(found.sees_labels)


def differences_figure(entry: Merged) -> "Figure | None":
    """Each row's difference from the base in the first metric, with its 95 % interval; None if there are none."""
    metric = entry.tables[0]["metrics"][0]
    rows = [
        found[metric["name"], False]
        for row, found in entry.rows().items()
        if (metric["name"], False) in found and not _sees_labels(row)
    ]
    known = [r for r in rows if r.difference is not None]
    if not known:
        return None
    figure, axes = new_figure(1, 1, (8.5, 1.0 + 0.3 * len(known)))
    axis = axes[0, 0]
    for place, r in enumerate(known):
        low, high = r.difference_low, r.difference_high
        if low is not None and high is not None:
            axis.plot([low, high], [place, place], color="tab:blue")
        axis.plot([r.difference], [place], "o", color="tab:blue", markersize=4)
    axis.axvline(0, color="gray", linewidth=1)
    axis.set_yticks(range(len(known)), [r.title for r in known], fontsize=8)
    axis.invert_yaxis()
    better = {True: " (right is better)", False: " (left is better)", None: ""}[metric["higher_is_better"]]
    axis.set_xlabel(f"difference from the base in {with_unit(metric)}{better}")
    axis.grid(axis="x", alpha=0.3)
    return figure


def legend(entry: Merged) -> list[tuple[str, str]]:
    """(title, what it is) of each row: the first sentence of its module."""
    found = []
    for row, results in entry.rows().items():
        title = next(iter(results.values())).title
        if row == ALTERNATIVE:
            found.append((title, "one draw in the layer that the scores rank second, from a run of its own"))
            continue
        cls = class_of(row)
        words = "" if cls is None else import_module(cls.__module__).__doc__ or ""
        first = " ".join(words.strip().split("\n\n")[0].split())
        found.append((title, first.split(": ", 1)[-1]))
    return [(title, text) for title, text in found if text]


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
        picture = file_picture(folder / PICTURE, "gains by layer") if (folder / PICTURE).is_file() else None
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
        file_picture(path, path.stem.replace("_", " "), path.stem.replace("_", " "))
        for path in sorted(run.pictures.iterdir())
        if path.is_file()
    ]
    return [picture for picture in known if picture is not None]


def _stores(contents: Contents) -> list[Block]:
    return [Markdown("Each store of overfitted weights:"), Links(contents.stores)] if contents.stores else []


def _plot(run: Artifacts, name: str, text: str) -> list[Block]:
    path = run.report / name
    picture = file_picture(path, text) if path.is_file() else None
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
