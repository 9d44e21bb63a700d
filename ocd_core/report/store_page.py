"""One HTML page about a whole store. It opens offline: styles and plots are embedded, and there is no script."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ocd_core.params_files import flat
from ocd_core.report.page import Block, Code, Details, Markdown, Section, Table, figure_picture, html_page
from ocd_core.report.store_card import CITATION
from ocd_core.report.store_geometry import Neighbours, mean_deltas, nearest_neighbours, singular_values
from ocd_core.report.store_plots import (
    MOST_CLASSES,
    deltas_figure,
    losses_figure,
    means_figure,
    neighbours_figure,
    norms_figure,
    singular_figure,
)
from ocd_core.report.store_terminal import headline, spreads
from ocd_core.store import OverfitStore
from ocd_core.store.summary import Float64, RowValues, array_sizes, read_rows

_EXAMPLES = 8


def store_page(store: OverfitStore, values: RowValues | None = None) -> str:
    """The page as HTML; the same store gives the same page."""
    values = values or read_rows(store)
    sections = [
        Section("About", _about(store)),
        Section("Arrays", [_arrays(store)]),
        Section("Norms and losses", _norms(store, values)),
        Section("Weight changes", _changes(store, values)),
        Section("Singular values", _singular(singular_values(store))),
        Section("Nearest neighbours", _neighbours(nearest_neighbours(store, values))),
        Section("How to open it", _open(store)),
    ]
    name = f"{store.attributes.get('task', 'Overfit store')}, {store.attributes.get('split', '')}"
    return html_page(f"Overfitted weights: {name}", headline(store), sections)


def _about(store: OverfitStore) -> list[Block]:
    about = store.attributes
    facts = {
        "rows": f"{len(store):,}",
        "layer": f"{about.get('layer', '?')}: {store.schema.out_features} × {store.schema.in_features}",
        "layout": f"{store.layout}, {store.steps} steps",
        "base weights": f"sha256 {about.get('base_sha256', 'not recorded')}",
        "made with": f"ocd_core {about.get('code_version', '?')}",
        "fingerprint": str(about["fingerprint"]),
    }
    text = (
        "Each row is one sample. A trained base network was overfitted to that sample alone, in the weight of one "
        "layer: Δ is the change of that weight, and ρ is the Frobenius norm of Δ."
    )
    config = Table(("parameter", "value"), [(k, str(v)) for k, v in flat(about.get("config") or {}).items()])
    return [Markdown(text), Table(("", ""), list(facts.items())), Details("config", [config])]


def _arrays(store: OverfitStore) -> Table:
    sizes = array_sizes(store)
    rows = [
        (
            a.name,
            ", ".join(a.dims),
            " × ".join(map(str, a.shape)),
            a.dtype,
            a.units,
            a.meaning,
            _mb(a.bytes),
            _mb(a.stored_bytes),
        )
        for a in sizes
    ]
    total = ("all", "", "", "", "", "", *(_mb(sum(getattr(a, k) for a in sizes)) for k in ("bytes", "stored_bytes")))
    return Table(("array", "dims", "shape", "type", "units", "meaning", "MB", "MB in files"), [*rows, total], numbers=2)


def _norms(store: OverfitStore, values: RowValues) -> list[Block]:
    columns = ("min", "q25", "median", "q75", "max", "mean")
    rows = [(name, *(f"{numbers[c]:.3g}" for c in columns)) for name, numbers in spreads(values).items()]
    steps = [
        (f"after step {k}" if k else "before", f"{np.median(loss):.3g}", f"{loss.mean():.3g}")
        for k, loss in enumerate(values.loss.T)
    ]
    notes = [] if len(values) == len(store) else [f"Based on {len(values):,} rows drawn at random."]
    if values.correct is not None:
        notes.append(f"The base network is right for {100 * values.correct.mean():.2f} % of these rows.")
    return [
        *([Markdown(" ".join(notes))] if notes else []),
        Table(("", *columns), rows, numbers=len(columns)),
        figure_picture(norms_figure(values), "norms of Δ"),
        figure_picture(losses_figure(values), "losses before and after overfitting, and along the steps"),
        Details("loss along the steps", [Table(("", "median", "mean"), steps, numbers=2)]),
    ]


def _changes(store: OverfitStore, values: RowValues) -> list[Block]:
    means = mean_deltas(store, values)
    what = "of all rows" if values.classes is None else "of each class"
    if len(means.mean) > MOST_CLASSES:
        what += f" (the first {MOST_CLASSES} of {len(means.mean)})"
    return [
        Markdown("Δ of rows at quantiles of ρ, each on its own colour scale."),
        figure_picture(deltas_figure(store, values), "Δ"),
        Markdown(f"Mean Δ {what}, over {sum(means.rows.values()):,} rows."),
        figure_picture(means_figure(means), "mean Δ"),
    ]


def _singular(singular_NR: Float64) -> list[Block]:
    norm = np.sqrt((singular_NR**2).sum(1))
    kept = singular_NR[norm > 0]
    if not len(kept):
        return [Markdown("Every Δ is 0.")]
    shares = np.cumsum(kept**2, axis=1) / (kept**2).sum(1, keepdims=True)
    ranks = sorted({k for k in (1, 2, 3, 5, 10, 20) if k <= shares.shape[1]})
    rows = [(str(k), *(f"{100 * q:.4g}" for q in np.quantile(shares[:, k - 1], (0.1, 0.5, 0.9)))) for k in ranks]
    return [
        Markdown(f"The share of ‖Δ‖² that the largest singular values account for, in %, over {len(kept):,} rows."),
        Table(("singular values", "10 % of rows below", "median", "90 % below"), rows, numbers=3),
        figure_picture(singular_figure(singular_NR), "singular values of Δ"),
    ]


def _neighbours(found: Neighbours | None) -> list[Block]:
    if found is None:
        return [Markdown("Fewer than two rows have a nonzero Δ.")]
    nearest = found.cosine[:, 0]
    rows = [
        (name, *(f"{q:.3f}" for q in np.quantile(cosine, (0.1, 0.5, 0.9))))
        for name, cosine in (("the nearest neighbour", nearest), ("a random row", found.other))
    ]
    if found.classes is not None:
        shares = [(f"{k} nearest", f"{100 * found.same_class(k):.1f}") for k in (1, 5, 10) if k <= found.near.shape[1]]
        shares.append(("by chance", f"{100 * found.same_class_by_chance():.1f}"))
        targets = Table(("neighbours", "of the same class, %"), shares, numbers=1)
    else:
        near, other = found.target_distance()
        distances = [("to the nearest neighbour's", f"{near:.4g}"), ("to a random row's", f"{other:.4g}")]
        targets = Table(("distance of targets", "mean"), distances, numbers=1)
    return [
        Markdown(f"{len(found.rows):,} rows, compared with each other by the cosine of their Δ."),
        Table(("cosine with", "10 % of rows below", "median", "90 % below"), rows, numbers=3),
        targets,
        figure_picture(neighbours_figure(found), "cosines of nearest neighbours"),
        Details("examples", [_examples(found)]),
    ]


def _examples(found: Neighbours) -> Table:
    """Some rows with their three nearest neighbours."""
    rows = []
    for i in np.linspace(0, len(found.rows) - 1, min(_EXAMPLES, len(found.rows))).astype(int):
        near = [
            f"row {found.rows[j]} (target {_short(found.target[j])}), {c:.3f}"
            for j, c in zip(found.near[i, :3], found.cosine[i, :3], strict=True)
        ]
        rows.append((f"row {found.rows[i]} (target {_short(found.target[i])})", *near, *[""] * (3 - len(near))))
    return Table(("row", "nearest, cosine", "second", "third"), rows)


def _open(store: OverfitStore) -> Sequence[Block]:
    name = store.location.rstrip("/").rsplit("/", 1)[-1]
    code = (
        f'import xarray\n\nstore = xarray.open_zarr("{name}")\n\n\nfrom ocd_core import OverfitStore\n\n'
        f'delta = OverfitStore("{name}").delta(0)  # float32, (out_features, in_features), for either layout'
    )
    return [Code(code), Markdown("The method's paper:"), Code(CITATION)]


def _mb(size: int) -> str:
    return f"{size / 1e6:,.2f}"


def _short(target: Any) -> str:
    return np.array2string(np.asarray(target), precision=3, threshold=4, edgeitems=2)
