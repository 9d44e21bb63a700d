"""Pictures of what a run has kept. Matplotlib is drawn off-screen; every function writes one PNG."""

import csv
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ocd_core.artifacts import Artifacts
from ocd_core.errors import UserError
from ocd_core.store import OverfitStore

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_SHOWN_DELTAS = 4
_MOST_ROWS = 20_000  # of a store, for histograms


def _figure(rows: int, columns: int, size: tuple[float, float]) -> "tuple[Figure, np.ndarray]":
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(rows, columns, figsize=size, squeeze=False, layout="constrained")
    return figure, axes


def _save(figure: "Figure", path: Path) -> None:
    from matplotlib import pyplot

    path.parent.mkdir(parents=True, exist_ok=True)
    # no software version or date in the file: the same data gives the same bytes
    figure.savefig(path, dpi=110, format="png", metadata={"Software": None})
    pyplot.close(figure)


def _read_rows(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        raise UserError(f"{path} is missing; run 'dvc repro'")
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t"))


def plot_layer_scores(scores: Path, dest: Path) -> None:
    """Mean entropy of the loss for each layer, with its standard error (the paper's Fig. 3)."""
    rows = _read_rows(scores)
    figure, axes = _figure(1, 1, (1.2 + 0.9 * len(rows), 3.2))
    axis = axes[0, 0]
    entropy = [float(r["entropy"]) if r["entropy"] else np.nan for r in rows]
    error = [float(r["stderr"]) if r["stderr"] else 0.0 for r in rows]
    axis.errorbar(range(len(rows)), entropy, yerr=error, fmt="o", capsize=4)
    axis.set_xticks(range(len(rows)), [r["layer"] for r in rows], rotation=30 if len(rows) > 6 else 0)
    axis.set_xlim(-0.5, len(rows) - 0.5)
    axis.set_ylabel("mean entropy of the loss (nats)")
    axis.set_title("layer selection (Eq. 3)")
    axis.grid(axis="y", alpha=0.3)
    _save(figure, dest)


def plot_curves(run: Artifacts, dest: Path) -> None:
    """Training and validation losses of the base network, the diffusion model and the scale network."""
    figure, axes = _figure(1, 3, (12, 3.4))
    for axis, (title, folder) in zip(
        axes[0], (("base network", run.base), ("diffusion", run.diffusion), ("scale", run.scale)), strict=True
    ):
        rows = _read_rows(folder / "curve.tsv")
        x = "epoch" if rows and "epoch" in rows[0] else "update"
        for name in ("loss", "train_loss", "val_loss"):
            points = [(float(r[x]), float(r[name])) for r in rows if r.get(name)]
            if points:
                axis.plot(*zip(*points, strict=True), marker=".", label=name.replace("_", " "))
        axis.set(title=title, xlabel=x)
        if rows and all(float(r[n]) > 0 for r in rows for n in ("loss", "train_loss", "val_loss") if r.get(n)):
            axis.set_yscale("log")
        axis.grid(alpha=0.3)
        axis.legend()
    _save(figure, dest)


def plot_store(path: Path | str, dest: Path, sample: int | None = None) -> None:
    """An overfit store in one picture: ρ, losses before and after, and some Δ as images.

    Args:
        sample: a row to show alone among the images; by default the rows at the quantiles of ρ.
    """
    store = OverfitStore(path)
    rows = slice(0, min(len(store), _MOST_ROWS))
    rho = store.read("rho", rows)
    before = store.read("loss_before", rows)
    after = store.read("loss_after", rows)[:, -1]
    figure, axes = _figure(2, _SHOWN_DELTAS, (3.2 * _SHOWN_DELTAS, 6.2))
    _histogram_of_norms(axes[0, 0], rho)
    _before_and_after(axes[0, 1], before, after)
    axes[0, 2].hist(_log10(before), 50, alpha=0.6, label="before")
    axes[0, 2].hist(_log10(after), 50, alpha=0.6, label="after")
    axes[0, 2].set(title="loss", xlabel="log10 loss", ylabel="rows")
    axes[0, 2].legend()
    steps = np.column_stack([before, store.read("loss_after", rows)])
    axes[0, 3].plot(np.median(steps, 0), "o-", label="median")
    axes[0, 3].plot(steps.mean(0), "o-", label="mean")
    axes[0, 3].set(title="loss along the steps", xlabel="step")
    axes[0, 3].legend()
    order = np.argsort(rho)
    picks = [order[int(q * (len(order) - 1))] for q in np.linspace(0.25, 1, _SHOWN_DELTAS)]
    if sample is not None:
        picks[0] = sample
    for axis, row in zip(axes[1], picks, strict=True):
        delta = store.delta(int(row))
        limit = float(np.abs(delta).max()) or 1.0
        image = axis.imshow(delta, cmap="RdBu_r", vmin=-limit, vmax=limit, aspect="auto")
        figure.colorbar(image, ax=axis)
        norm = float(store.read("rho", np.array([row]))[0])
        axis.set(title=f"Δ of row {row}, ρ = {norm:.2g}", xlabel="in_features", ylabel="out_features")
    figure.suptitle(f"{store.attributes['task']}, {store.attributes['split']}: layer {store.attributes['layer']}")
    _save(figure, dest)


def _log10(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    logarithm: np.ndarray[Any, Any] = np.log10(np.maximum(values, 1e-16))
    return logarithm


def _histogram_of_norms(axis: "Axes", rho: np.ndarray[Any, Any]) -> None:
    axis.hist(_log10(rho), 50)
    axis.set(title="ρ = ‖Δ‖", xlabel="log10 ρ", ylabel="rows")


def _before_and_after(axis: "Axes", before: np.ndarray[Any, Any], after: np.ndarray[Any, Any]) -> None:
    x, y = _log10(before), _log10(after)
    axis.plot(x, y, ".", markersize=2)
    low, high = min(x.min(), y.min()), max(x.max(), y.max())
    axis.plot([low, high], [low, high], "k-", linewidth=0.5)
    axis.set(title="each row's loss", xlabel="log10 before", ylabel="log10 after")
