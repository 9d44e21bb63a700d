"""Plots of a run: layer scores and training curves (for plots of a store, see ocd_core.report.store_plots)."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ocd_core.artifacts import Artifacts, read_table
from ocd_core.drawing import new_figure, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# "The diffusion process will work once the training objective (over the normalized diffusion model) reaches a plateau
# of 5E-4" (README of the released code, whose objective is the squared error of the predicted noise)
RELEASED_PLATEAU = 5e-4


def plot_layer_scores(scores: Path, convergence: Path, dest: Path) -> None:
    """Save `layer_scores_figure` as a PNG."""
    save_figure(layer_scores_figure(scores, convergence), dest)


def layer_scores_figure(scores: Path, convergence: Path) -> "Figure":
    """Plot each layer's mean entropy of the loss with its standard error (the paper's Fig. 3), and its convergence.

    There is one line per layer, best rank on top, so that any number of names of any length fits; a layer's name has
    the colour of its curve.

    Args:
        scores, convergence: the tables `scores.tsv` and `convergence.tsv` of the stage score_layers.
    """
    rows, steps = read_table(scores), read_table(convergence)
    figure, axes = new_figure(1, 2, (9.0, max(3.2, 1.2 + 0.22 * len(rows))))
    axis, by_draws = axes[0]
    colours = []
    for place, row in enumerate(rows):
        entropy = float(row["entropy"]) if row["entropy"] else np.nan
        error = float(row["stderr"]) if row["stderr"] else 0.0
        drawn = axis.errorbar(entropy, place, xerr=error, fmt="o", capsize=4)
        colours.append(drawn[0].get_color())
        own = [
            (int(s["draws"]), float(s["entropy"]) if s["entropy"] else np.nan)
            for s in steps
            if s["layer"] == row["layer"]
        ]
        by_draws.plot(*zip(*own, strict=True), "o-", markersize=3, color=colours[-1])
    axis.set_yticks(range(len(rows)), [r["layer"] for r in rows])
    for label, colour in zip(axis.get_yticklabels(), colours, strict=True):
        label.set_color(colour)
    axis.set_ylim(len(rows) - 0.5, -0.5)
    axis.set_xlabel("mean entropy of the loss (nats)")
    axis.set_title("layer selection (Eq. 3)")
    axis.grid(axis="x", alpha=0.3)
    by_draws.set_xscale("log")
    by_draws.set_xlabel("draws per sample")
    by_draws.set_ylabel("mean entropy of the loss (nats)")
    by_draws.set_title("convergence")
    by_draws.grid(axis="y", alpha=0.3)
    return figure


def plot_curves(run: Artifacts, dest: Path) -> None:
    """Save `curves_figure` as a PNG."""
    save_figure(curves_figure(run), dest)


def curves_figure(run: Artifacts) -> "Figure":
    """Plot the training and validation losses of the base network, the diffusion model and the scale network.

    A fourth plot shows the squared error of the predicted noise on validation, with the plateau of the released code.
    The plot of a training that did not take place, because nothing would use its network, says so.
    """
    figure, axes = new_figure(1, 4, (16, 3.4))
    base, diffusion, noise, scale = axes[0]
    for axis, title, folder in (
        (base, "base network", run.base),
        (diffusion, "diffusion", run.diffusion),
        (scale, "scale", run.scale),
    ):
        _draw_curves(axis, title, read_table(folder / "curve.tsv"), ("loss", "train_loss", "val_loss"))
    _draw_curves(noise, "error of the predicted noise", read_table(run.diffusion / "curve.tsv"), ("val_epsilon_mse",))
    noise.axhline(RELEASED_PLATEAU, color="gray", linestyle="--", label="5e-4: plateau of the released code")
    noise.legend()
    return figure


def _draw_curves(axis: "Axes", title: str, rows: list[dict[str, str]], names: tuple[str, ...]) -> None:
    if not rows:
        axis.set_title(title)
        axis.text(0.5, 0.5, "not trained: not used", ha="center", va="center", transform=axis.transAxes)
        axis.set_axis_off()
        return
    x = "epoch" if "epoch" in rows[0] else "update"
    for name in names:
        points = [(float(r[x]), float(r[name])) for r in rows if r.get(name)]
        if points:
            axis.plot(*zip(*points, strict=True), marker=".", label=name.replace("_", " "))
    axis.set(title=title, xlabel=x)
    if all(float(r[n]) > 0 for r in rows for n in names if r.get(n)):
        axis.set_yscale("log")
    axis.grid(alpha=0.3)
    axis.legend()
