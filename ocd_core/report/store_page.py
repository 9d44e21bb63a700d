"""One HTML page about a whole store. It opens offline: styles and plots are embedded, and there is no script."""

import base64
from collections.abc import Iterable
from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from ocd_core.drawing import png
from ocd_core.params_files import flat
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

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_EXAMPLES = 8
_STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #222; max-width: 72rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.25rem; margin-top: 2.2rem; border-bottom: 1px solid #ddd; }
table { border-collapse: collapse; margin: .8rem 0; font-size: .9rem; }
th, td { padding: .2rem .7rem; text-align: left; border-bottom: 1px solid #e5e5e5; }
td.n, th.n { text-align: right; font-variant-numeric: tabular-nums; }
img { max-width: 100%; height: auto; } code { font-size: .9em; } .scroll { overflow-x: auto; }
details { margin: .8rem 0; } pre { background: #f6f6f6; padding: .8rem; overflow-x: auto; }
"""


def store_page(store: OverfitStore, values: RowValues | None = None) -> str:
    """The page as HTML; the same store gives the same page."""
    values = values or read_rows(store)
    sections = [
        _about(store),
        ("Arrays", _arrays(store)),
        ("Norms and losses", _norms(store, values)),
        ("Weight changes", _changes(store, values)),
        ("Singular values", _singular(singular_values(store))),
        ("Nearest neighbours", _neighbours(nearest_neighbours(store, values))),
        ("How to open it", _open(store)),
    ]
    body = "\n".join(f"<h2>{escape(title)}</h2>\n{content}" for title, content in sections)
    name = escape(f"{store.attributes.get('task', 'Overfit store')}, {store.attributes.get('split', '')}")
    return (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n<title>{name}</title>\n'
        f'<meta name="viewport" content="width=device-width">\n<style>{_STYLE}</style>\n</head>\n<body>\n'
        f"<h1>Overfitted weights: {name}</h1>\n<p>{escape(headline(store))}</p>\n{body}\n</body>\n</html>\n"
    )


def _about(store: OverfitStore) -> tuple[str, str]:
    about = store.attributes
    facts = {
        "rows": f"{len(store):,}",
        "layer": f"{about.get('layer', '?')}: {store.schema.out_features} × {store.schema.in_features}",
        "layout": f"{store.layout}, {store.steps} steps",
        "base weights": f"sha256 {about.get('base_sha256', 'not recorded')}",
        "made with": f"ocd_core {about.get('code_version', '?')}",
        "fingerprint": about["fingerprint"],
    }
    text = (
        "<p>Each row is one sample. A trained base network was overfitted to that sample alone, in the weight of one "
        "layer: Δ is the change of that weight, and ρ is the Frobenius norm of Δ.</p>"
    )
    config = _table(("parameter", "value"), [(k, str(v)) for k, v in flat(about.get("config") or {}).items()])
    return "About", f"{text}{_table(('', ''), facts.items())}<details><summary>config</summary>{config}</details>"


def _arrays(store: OverfitStore) -> str:
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
        for a in array_sizes(store)
    ]
    total = (
        "all",
        "",
        "",
        "",
        "",
        "",
        *(_mb(sum(getattr(a, k) for a in array_sizes(store))) for k in ("bytes", "stored_bytes")),
    )
    heads = ("array", "dims", "shape", "type", "units", "meaning", "MB", "MB in files")
    return _table(heads, [*rows, total], numbers=2)


def _norms(store: OverfitStore, values: RowValues) -> str:
    columns = ("min", "q25", "median", "q75", "max", "mean")
    rows = [(name, *(f"{numbers[c]:.3g}" for c in columns)) for name, numbers in spreads(values).items()]
    steps = [
        (f"after step {k}" if k else "before", f"{np.median(loss):.3g}", f"{loss.mean():.3g}")
        for k, loss in enumerate(values.loss.T)
    ]
    note = "" if len(values) == len(store) else f"<p>Based on {len(values):,} rows drawn at random.</p>"
    if values.correct is not None:
        note += f"<p>The base network is right for {100 * values.correct.mean():.2f} % of these rows.</p>"
    return (
        f"{note}{_table(('', *columns), rows, numbers=len(columns))}{_image(norms_figure(values), 'norms of Δ')}"
        f"{_image(losses_figure(values), 'losses before and after overfitting, and along the steps')}"
        f"<details><summary>loss along the steps</summary>{_table(('', 'median', 'mean'), steps, numbers=2)}</details>"
    )


def _changes(store: OverfitStore, values: RowValues) -> str:
    means = mean_deltas(store, values)
    what = "of all rows" if values.classes is None else "of each class"
    if len(means.mean) > MOST_CLASSES:
        what += f" (the first {MOST_CLASSES} of {len(means.mean)})"
    return (
        f"<p>Δ of rows at quantiles of ρ, each on its own colour scale.</p>{_image(deltas_figure(store, values), 'Δ')}"
        f"<p>Mean Δ {what}, over {sum(means.rows.values()):,} rows.</p>{_image(means_figure(means), 'mean Δ')}"
    )


def _singular(singular_NR: Float64) -> str:
    norm = np.sqrt((singular_NR**2).sum(1))
    kept = singular_NR[norm > 0]
    if not len(kept):
        return "<p>Every Δ is 0.</p>"
    shares = np.cumsum(kept**2, axis=1) / (kept**2).sum(1, keepdims=True)
    ranks = sorted({k for k in (1, 2, 3, 5, 10, 20) if k <= shares.shape[1]})
    rows = [(str(k), *(f"{100 * q:.4g}" for q in np.quantile(shares[:, k - 1], (0.1, 0.5, 0.9)))) for k in ranks]
    return (
        f"<p>The share of ‖Δ‖² that the largest singular values account for, in %, over {len(kept):,} rows.</p>"
        f"{_table(('singular values', '10 % of rows below', 'median', '90 % below'), rows, numbers=3)}"
        f"{_image(singular_figure(singular_NR), 'singular values of Δ')}"
    )


def _neighbours(found: Neighbours | None) -> str:
    if found is None:
        return "<p>Fewer than two rows have a nonzero Δ.</p>"
    text = f"<p>{len(found.rows):,} rows, compared with each other by the cosine of their Δ.</p>"
    nearest = found.cosine[:, 0]
    rows = [
        (name, *(f"{q:.3f}" for q in np.quantile(cosine, (0.1, 0.5, 0.9))))
        for name, cosine in (("the nearest neighbour", nearest), ("a random row", found.other))
    ]
    text += _table(("cosine with", "10 % of rows below", "median", "90 % below"), rows, numbers=3)
    if found.classes is not None:
        shares = [(f"{k} nearest", f"{100 * found.same_class(k):.1f}") for k in (1, 5, 10) if k <= found.near.shape[1]]
        shares.append(("by chance", f"{100 * found.same_class_by_chance():.1f}"))
        text += _table(("neighbours", "of the same class, %"), shares, numbers=1)
    else:
        near, other = found.target_distance()
        text += _table(
            ("distance of targets", "mean"),
            [("to the nearest neighbour's", f"{near:.4g}"), ("to a random row's", f"{other:.4g}")],
            numbers=1,
        )
    text += _image(neighbours_figure(found), "cosines of nearest neighbours")
    return f"{text}<details><summary>examples</summary>{_examples(found)}</details>"


def _examples(found: Neighbours) -> str:
    """Some rows with their three nearest neighbours."""
    rows = []
    for i in np.linspace(0, len(found.rows) - 1, min(_EXAMPLES, len(found.rows))).astype(int):
        near = [
            f"row {found.rows[j]} (target {_short(found.target[j])}), {c:.3f}"
            for j, c in zip(found.near[i, :3], found.cosine[i, :3], strict=True)
        ]
        rows.append((f"row {found.rows[i]} (target {_short(found.target[i])})", *near, *[""] * (3 - len(near))))
    return _table(("row", "nearest, cosine", "second", "third"), rows)


def _open(store: OverfitStore) -> str:
    name = store.location.rstrip("/").rsplit("/", 1)[-1]
    code = (
        f'import xarray\n\nstore = xarray.open_zarr("{name}")\n\n\nfrom ocd_core import OverfitStore\n\n'
        f'delta = OverfitStore("{name}").delta(0)  # float32, (out_features, in_features), for either layout'
    )
    return f"<pre>{escape(code)}</pre><p>The method's paper:</p><pre>{escape(CITATION)}</pre>"


def _table(heads: Iterable[str], rows: Iterable[Iterable[Any]], numbers: int = 0) -> str:
    """A table whose last `numbers` columns are numbers."""
    heads = list(heads)

    def line(cells: Iterable[Any], tag: str) -> str:
        first = len(heads) - numbers
        marks = (' class="n"' if i >= first else "" for i in range(len(heads)))
        filled = (f"<{tag}{mark}>{escape(str(c))}</{tag}>" for mark, c in zip(marks, cells, strict=True))
        return f"<tr>{''.join(filled)}</tr>"

    top = line(heads, "th") if any(heads) else ""
    return f'<div class="scroll"><table>{top}{"".join(line(r, "td") for r in rows)}</table></div>'


def _image(figure: "Figure", text: str) -> str:
    data = base64.b64encode(png(figure)).decode()
    return f'<p><img alt="{escape(text)}" src="data:image/png;base64,{data}"></p>'


def _mb(size: int) -> str:
    return f"{size / 1e6:,.2f}"


def _short(target: Any) -> str:
    return np.array2string(np.asarray(target), precision=3, threshold=4, edgeitems=2)
