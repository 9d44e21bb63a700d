"""Plots of an overfit store: each function makes one figure; `plot_store` writes the overview as a PNG."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from ocd_core.drawing import new_figure, save_figure
from ocd_core.report.store_geometry import MeanDeltas, Neighbours
from ocd_core.store import OverfitStore
from ocd_core.store.summary import Float64, RowValues, read_rows, subset

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_CLASSES = 20  # how many classes are shown as images
_SHOWN_DELTAS = 4
_MOST_POINTS = 20_000
_FLOOR = 1e-16  # smallest argument of a logarithm
_RIGHT, _WRONG = "tab:blue", "tab:red"


def plot_store(path: Path | str, dest: Path, sample: int | None = None) -> None:
    """Plot an overfit store: ρ, losses before and after and along the steps, and some Δ as images.

    Args:
        sample: a row to show first among the images; by default all images are of rows at quantiles of ρ.
    """
    store = OverfitStore(path)
    save_figure(overview_figure(store, read_rows(store), sample), dest)


def overview_figure(store: OverfitStore, values: RowValues, sample: int | None = None) -> "Figure":
    """The plot of `plot_store`, as a figure."""
    figure, axes = new_figure(2, _SHOWN_DELTAS, (3.7 * _SHOWN_DELTAS, 6.6))
    draw_norms(axes[0, 0], values)
    draw_before_after(axes[0, 1], values)
    draw_losses(axes[0, 2], values)
    draw_steps(axes[0, 3], values)
    picks = rows_by_norm(values, _SHOWN_DELTAS)
    if sample is not None:
        picks[0] = sample
    for axis, row in zip(axes[1], picks, strict=True):
        draw_delta(axis, store.delta(row), f"Δ of row {row}, ρ = {_norm(store, row):.2g}")
    about = store.attributes
    figure.suptitle(f"{about.get('task', 'store')}, {about.get('split', '')}: layer {about.get('layer', '?')}")
    return figure


def norms_figure(values: RowValues) -> "Figure":
    """ρ, separately for rows that the base gets right and wrong."""
    figure, axes = new_figure(1, 1, (5.6, 3.4))
    draw_norms(axes[0, 0], values)
    return figure


def losses_figure(values: RowValues) -> "Figure":
    """Losses before and after overfitting, and along the steps."""
    figure, axes = new_figure(1, 3, (12.6, 3.6))
    draw_before_after(axes[0, 0], values)
    draw_losses(axes[0, 1], values)
    draw_steps(axes[0, 2], values)
    return figure


def deltas_figure(store: OverfitStore, values: RowValues) -> "Figure":
    """Δ of rows at quantiles of ρ."""
    picks = rows_by_norm(values, _SHOWN_DELTAS)
    figure, axes = new_figure(1, _SHOWN_DELTAS, (3.7 * _SHOWN_DELTAS, 3.2))
    for axis, row in zip(axes[0], picks, strict=True):
        draw_delta(axis, store.delta(row), f"row {row}, ρ = {_norm(store, row):.2g}")
    return figure


def means_figure(means: MeanDeltas) -> "Figure":
    """Mean Δ of each class (the first `MOST_CLASSES` only), each on its own colour scale."""
    keys = list(means.mean)[:MOST_CLASSES]
    columns = min(5, len(keys))
    lines = -(-len(keys) // columns)
    figure, axes = new_figure(lines, columns, (max(2.9 * columns, 4.2), 2.6 * lines))
    for axis in axes.flat[len(keys) :]:
        axis.set_axis_off()
    for axis, key in zip(axes.flat, keys, strict=False):
        title = "all rows" if key is None else f"class {key}"
        draw_delta(axis, means.mean[key], f"{title} ({means.rows[key]:,} rows)", labels=False)
    return figure


def singular_figure(singular_NR: Float64) -> "Figure":
    """Singular values of Δ divided by the largest: the median, and the 10 to 90 % band over rows."""
    figure, axes = new_figure(1, 1, (5.6, 3.4))
    axis = axes[0, 0]
    largest = singular_NR[:, :1]
    relative = np.maximum((singular_NR / np.where(largest > 0, largest, 1))[largest[:, 0] > 0], _FLOOR)
    axis.set(title="singular values of Δ, over the largest", xlabel="which", ylabel="σ / σ₁", yscale="log")
    if not len(relative):
        axis.text(0.5, 0.5, "every Δ is 0", transform=axis.transAxes, ha="center")
        return figure
    low, median, high = np.quantile(relative, (0.1, 0.5, 0.9), axis=0)
    which = np.arange(1, relative.shape[1] + 1)
    axis.fill_between(which, low, high, alpha=0.25, linewidth=0, label="10 to 90 % of rows")
    axis.plot(which, median, ".-", markersize=4, label=f"median of {len(relative)} rows")
    axis.axhline(np.finfo(np.float32).eps, color="grey", linewidth=0.8, linestyle="--", label="precision of float32")
    axis.grid(alpha=0.3)
    axis.legend(fontsize="small")
    return figure


def neighbours_figure(found: Neighbours) -> "Figure":
    """Cosine with the nearest neighbour and with a random row; classes of the nearest neighbours as a table."""
    table = found.classes is not None and found.classes <= MOST_CLASSES
    figure, axes = new_figure(1, 1 + table, (9.6 if table else 5.6, 3.8))
    bins = list(np.linspace(-1, 1, 61))
    axes[0, 0].hist(found.other, bins, alpha=0.6, label="a random row", color="tab:grey")
    axes[0, 0].hist(found.cosine[:, 0], bins, alpha=0.6, label="the nearest neighbour", color="tab:green")
    axes[0, 0].set(title=f"cosine of Δ, {len(found.rows):,} rows", xlabel="cosine", ylabel="rows")
    axes[0, 0].legend(fontsize="small", loc="upper left")
    if table:
        axis = axes[0, 1]
        image = axis.imshow(found.class_table(), cmap="viridis", vmin=0, vmax=1, interpolation="nearest")
        ticks = range(0, found.classes or 0, 1 if (found.classes or 0) <= 10 else 2)
        axis.set_xticks(ticks)
        axis.set_yticks(ticks)
        axis.set(title="class of the nearest neighbour", xlabel="neighbour's class", ylabel="row's class")
        figure.colorbar(image, ax=axis, label="share of rows")
    return figure


def rows_by_norm(values: RowValues, count: int) -> list[int]:
    """Rows of the store at `count` quantiles of ρ, from the first quartile to the largest."""
    order = np.argsort(values.rho, kind="stable")
    at = [int(q * (len(order) - 1)) for q in np.linspace(0.25, 1, count)]
    return [int(values.rows[order[i]]) for i in at]


def draw_norms(axis: "Axes", values: RowValues) -> None:
    """Histogram of log10 ρ; separately for right and wrong rows if the store is of a classification."""
    size = _log10(values.rho)
    bins = _bins(size)
    correct = values.correct
    if correct is None:
        axis.hist(size, bins, color=_RIGHT)
    else:
        for name, chosen, colour in (("right", correct, _RIGHT), ("wrong", ~correct, _WRONG)):
            axis.hist(size[chosen], bins, alpha=0.65, color=colour, label=f"base is {name} ({chosen.sum():,})")
        if correct.any() and not correct.all():
            axis.set_yscale("log")  # wrong rows are few
            axis.set_ylim(0.7, 12 * axis.get_ylim()[1])  # room for the legend
        else:
            axis.set_ylim(top=1.35 * axis.get_ylim()[1])
        axis.legend(fontsize="small", loc="upper left")
    axis.set(title="ρ = ‖Δ‖", xlabel="log10 ρ", ylabel="rows")


def draw_before_after(axis: "Axes", values: RowValues) -> None:
    """Each row's loss before and after overfitting, one point per row."""
    some = subset(len(values), _MOST_POINTS, "points")
    x, y = _log10(values.loss[some, 0]), _log10(values.loss[some, -1])
    correct = values.correct
    wrong = np.zeros(len(some), bool) if correct is None else ~correct[some]
    for chosen, colour in ((~wrong, _RIGHT), (wrong, _WRONG)):
        axis.plot(x[chosen], y[chosen], ".", markersize=2.5, color=colour, rasterized=True)
    low, high = float(min(x.min(), y.min())), float(max(x.max(), y.max()))
    axis.plot([low, high], [low, high], "k-", linewidth=0.6)
    axis.set(title="each row's loss", xlabel="log10 before", ylabel=f"log10 after {values.loss.shape[1] - 1} steps")
    axis.grid(alpha=0.3)


def draw_losses(axis: "Axes", values: RowValues) -> None:
    """Histograms of the log10 loss before and after overfitting."""
    before, after = _log10(values.loss[:, 0]), _log10(values.loss[:, -1])
    bins = _bins(np.concatenate([before, after]))
    axis.hist(before, bins, alpha=0.6, label="before", color="tab:grey")
    axis.hist(after, bins, alpha=0.6, label="after", color="tab:green")
    axis.set(title="loss", xlabel="log10 loss", ylabel="rows")
    axis.legend(fontsize="small")


def draw_steps(axis: "Axes", values: RowValues) -> None:
    """Mean, median and interquartile band of the loss along the steps."""
    loss = np.maximum(values.loss, _FLOOR)
    steps = np.arange(loss.shape[1])
    low, median, high = np.quantile(loss, (0.25, 0.5, 0.75), axis=0)
    axis.fill_between(steps, low, high, alpha=0.2, linewidth=0, label="middle half of rows")
    axis.plot(steps, median, "o-", markersize=4, label="median")
    axis.plot(steps, loss.mean(0), "s-", markersize=4, label="mean")
    if len(steps) <= 11:
        axis.set_xticks(steps)
    scale = "log" if loss.max() > loss.min() else "linear"
    axis.set(title="loss along the steps", xlabel="step", ylabel="loss", yscale=scale)
    axis.grid(alpha=0.3, which="both")
    axis.legend(fontsize="small")


def draw_delta(axis: "Axes", delta_OI: npt.NDArray[Any], title: str, *, labels: bool = True) -> None:
    """Show a matrix as an image, red for positive and blue for negative entries, on its own colour scale."""
    limit = float(np.abs(delta_OI).max()) or 1.0
    image = axis.imshow(delta_OI, cmap="RdBu_r", vmin=-limit, vmax=limit, aspect="auto", interpolation="nearest")
    bar = axis.figure.colorbar(image, ax=axis, ticks=[-limit, 0, limit])
    bar.ax.set_yticklabels([f"{-limit:.2g}", "0", f"{limit:.2g}"], fontsize="small")
    axis.set_title(title, fontsize="medium")
    if labels:
        axis.set(xlabel="in_features", ylabel="out_features")
    else:
        axis.tick_params(labelsize="small")


def _norm(store: OverfitStore, row: int) -> float:
    return float(store.read("rho", np.array([row]))[0])


def _log10(values: Float64) -> Float64:
    return np.asarray(np.log10(np.maximum(values, _FLOOR)))


def _bins(values: Float64) -> list[float]:
    low, high = float(values.min()), float(values.max())
    return list(np.linspace(low, high, 51) if high > low else np.linspace(low - 0.5, low + 0.5, 51))
