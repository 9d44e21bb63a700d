"""Single test samples of a run: those that one draw of OCD mends or breaks, and how sure the networks are of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from ocd_core.artifacts import Artifacts, read_json, read_table
from ocd_core.config import parse_params, trusted
from ocd_core.drawing import new_figure
from ocd_core.predictor import Predictor
from ocd_core.report.page import Block, Markdown, Table, figure_picture
from ocd_core.report.results import Table as RunTable
from ocd_core.samples import as_tuple, one_sample
from ocd_core.store.summary import Float64
from ocd_core.tasks.base import Task
from ocd_core.tasks.classification import CALIBRATION_BINS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SHOWN = 8  # of each kind
BASE, OCD, ENSEMBLE = "base", "ocd", "ocd_ensemble"
_LONGEST = 300  # characters of a text
_KINDS = {
    "mended": "The base is wrong, and one draw of OCD is right",
    "broken": "The base is right, and one draw of OCD is wrong",
    "better": "One draw of OCD is closer than the base",
    "worse": "One draw of OCD is further off than the base",
}
Columns = Mapping[str, Float64]


@dataclass(frozen=True)
class Chosen:
    """Samples to show, the most changed first. count: how many there are of the kind."""

    title: str
    count: int
    sample_id: list[int]


def sample_columns(run: Artifacts) -> Columns:
    """`evaluation/samples.tsv` by columns; an empty cell is NaN."""
    rows = read_table(run.evaluation / "samples.tsv")
    return {name: np.array([float(row[name] or "nan") for row in rows]) for name in rows[0]} if rows else {}


def choose(columns: Columns, table: RunTable) -> list[Chosen]:
    """The samples whose answer one draw changed most, for the better and for the worse.

    If the metrics have an accuracy: those that the draw made right or wrong.
    """
    metric = table["metrics"][0]
    if f"{OCD}_{metric['name']}" not in columns:
        return []
    base, ocd = (columns[f"{row}_{metric['name']}"] for row in (BASE, OCD))
    worse = (base - ocd if metric["higher_is_better"] else ocd - base).astype(float)
    if f"{OCD}_accuracy" in columns:
        right_before, right_after = (columns[f"{row}_accuracy"] > 0 for row in (BASE, OCD))
        kinds = [("mended", ~right_before & right_after), ("broken", right_before & ~right_after)]
    else:
        kinds = [("better", worse < 0), ("worse", worse > 0)]
    found = []
    for (title, member), sign in zip(kinds, (1, -1), strict=True):
        rows = np.flatnonzero(member)
        order = rows[np.argsort(sign * worse[rows], kind="stable")]
        found.append(Chosen(title, len(rows), order[:SHOWN].tolist()))
    return found


def samples_blocks(run: Artifacts, table: RunTable, *, shown: bool = True) -> list[Block]:
    """The chosen samples, with what the base and one draw of OCD answer; none if the run has no row `ocd`.

    Args:
        shown: False: only how many there are of each kind.
    """
    chosen = choose(sample_columns(run), table)
    if not chosen:
        return []
    if not shown or not any(kind.sample_id for kind in chosen):
        return [Markdown(" ".join(f"{_headline(kind, table)}." for kind in chosen))]
    where = run.evaluation / "config.json"
    config = read_json(where)
    with trusted(run.task, run.root, str(run.rank_dir)):
        predictor = Predictor.from_run(run, parse_params(config, str(where)))
    blocks: list[Block] = []
    for kind in chosen:
        if kind.sample_id:
            blocks += _blocks(run, predictor, kind, table)
        else:
            blocks.append(Markdown(f"{_headline(kind, table)}."))
    return blocks


def _blocks(run: Artifacts, predictor: Predictor, kind: Chosen, table: RunTable) -> list[Block]:
    task, ids = predictor.task, torch.tensor(kind.sample_id)
    batch = task.open(run.prepared, "test").batch(ids)
    # one by one: samples may be large
    found = [predictor.predict([x[i : i + 1] for x in batch.inputs], sample_id=ids[i : i + 1]) for i in range(len(ids))]
    answers = [
        [words(task, one_sample(output, 0)) for output in (prediction.base_output, prediction.output)]
        for prediction in found
    ]
    targets = [_target(task, one_sample(batch.target, i)) for i in range(len(ids))]
    headline = f"**{_headline(kind, table)}**; shown: where it changes most."
    shown = task.shown(run.prepared, "test", kind.sample_id)
    if shown and isinstance(shown[0], Tensor):
        captions = [
            f"test {i}: {target}\nbase: {base}\nOCD: {ocd}"
            for i, target, (base, ocd) in zip(kind.sample_id, targets, answers, strict=True)
        ]
        legend = "Above each image: its number and target, then what the base and one draw of OCD answer"
        sure = ", a class with its probability" if any("(" in base for base, _ in answers) else ""
        figure = images_figure([x for x in shown if isinstance(x, Tensor)], captions)
        listed = "; ".join(caption.replace("\n", ", ") for caption in captions)
        picture = figure_picture(figure, f"{kind.title}: {listed}")
        return [Markdown(f"{headline} {legend}{sure}."), picture]
    texts = [""] * len(ids) if shown is None else [_short(str(text)) for text in shown]
    rows = [
        [str(i), *([text] if shown else []), target, base, ocd]
        for i, text, target, (base, ocd) in zip(kind.sample_id, texts, targets, answers, strict=True)
    ]
    return [
        Markdown(headline),
        Table(["sample", *(["text"] if shown else []), "target", "base", "OCD (one draw)"], rows),
    ]


def _headline(kind: Chosen, table: RunTable) -> str:
    return f"{_KINDS[kind.title]}: {kind.count:,} of {table['results'][0]['n']:,} test samples"


def words(task: Task, output: Tensor | tuple[Tensor, ...]) -> str:
    """One sample's output in a few words; a class with its probability."""
    described = task.describe_output(output)
    if set(described) == {"class", "probability"}:
        return f"{described['class']} ({float(described['probability']):.2f})"
    return ", ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in described.items())


def _target(task: Task, target: Tensor | tuple[Tensor, ...]) -> str:
    value = as_tuple(target)[0]
    if not value.is_floating_point():
        return str(int(value)) if value.numel() == 1 else ", ".join(str(int(v)) for v in value.flatten()[:8])
    return words(task, target)


def _short(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


def images_figure(images: Sequence[Tensor], captions: Sequence[str]) -> "Figure":
    """Images in 0..1, (H, W) or (H, W, 3), four in a line."""
    columns = 4
    lines = -(-len(images) // columns)
    figure, axes = new_figure(lines, columns, (2.2 * columns, 2.6 * lines))
    for axis in axes.flat:
        axis.set_axis_off()
    for axis, image, caption in zip(axes.flat, images, captions, strict=False):
        axis.imshow(image.numpy(), cmap="gray", vmin=0, vmax=1)
        axis.set_title(caption, fontsize=9)
    return figure


def reliability(confidence: Float64, right: Float64) -> list[tuple[float, float, int]]:
    """The mean confidence, the share of right answers and the number of samples of each bin that has any.

    Bins as of the calibration error: `CALIBRATION_BINS` of equal width.
    """
    place = np.minimum((confidence * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
    bins = []
    for number in range(CALIBRATION_BINS):
        member = place == number
        if member.any():
            bins.append((float(confidence[member].mean()), float(right[member].mean()), int(member.sum())))
    return bins


def reliability_figure(run: Artifacts, table: RunTable) -> "Figure | None":
    """Reliability diagrams of the base, of one draw and of the ensemble; None if the task has no classes."""
    columns = sample_columns(run)
    titles = {r["row"]: r["title"] for r in table["results"]}
    ensembles = [row for row in titles if row.startswith(ENSEMBLE)][:1]
    rows = [row for row in (BASE, OCD, *ensembles) if row in titles and f"{row}_confidence" in columns]
    if not rows:
        return None
    figure, axes = new_figure(1, len(rows), (3.7 * len(rows), 3.7))
    for axis, row in zip(axes[0], rows, strict=True):
        found = reliability(columns[f"{row}_confidence"], columns[f"{row}_accuracy"] / 100)
        mean, share, count = (np.array(v) for v in zip(*found, strict=True))
        axis.plot([0, 1], [0, 1], "--", color="gray", linewidth=1)
        axis.scatter(mean, share, s=12 + 200 * count / count.sum(), alpha=0.5)
        axis.plot(mean, share, linewidth=1)
        axis.set(xlim=(0, 1), ylim=(0, 1), title=titles[row], xlabel="probability of the answer")
    axes[0, 0].set_ylabel("share of right answers")
    return figure
