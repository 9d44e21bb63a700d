"""What a run found, in words and one figure, for somebody who has seen nothing else of the project."""

from importlib import import_module
from typing import TYPE_CHECKING

from ocd_core.artifacts import Artifacts, read_json
from ocd_core.drawing import new_figure
from ocd_core.evaluation.result import Result
from ocd_core.evaluation.statistics import p_text
from ocd_core.report.markdown import as_text
from ocd_core.report.results import ALTERNATIVE, Merged
from ocd_core.report.row_classes import class_of
from ocd_core.report.run_tables import SIGNIFICANT, with_unit
from ocd_core.terminal import code_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def about(run: Artifacts, entry: Merged) -> str:
    """What was done, for somebody who does not know the method."""
    config = read_json(run.evaluation / "config.json")
    prepared = read_json(run.prepared / "summary.json")
    splits = prepared.get("splits")
    sizes = [f"{s['samples']:,} to {verb}" for name, verb in (("train", "train"), ("val", "choose"), ("test", "test"))
             if isinstance(splits, dict) and isinstance(s := splits.get(name), dict) and "samples" in s]  # fmt: skip
    data = f" ({', '.join(sizes)}; source: {as_text(str(prepared.get('source', 'see the config')))})" if sizes else ""
    network = code_text(config["base"]["model"]["name"])
    layer = code_text(entry.tables[0]["layer"])
    return (
        f"A base network (`{network}`) was trained on the task `{run.task}`{data}. It was then "
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
    name, number = as_text(with_unit(metric)), f".{metric['decimals']}f"
    if base.mean is None:
        return f"The {name} of the base is not defined."
    lines = [f"The base network's {name} is {base.mean:{number}}."]
    if drawn is not None and drawn.mean is not None:
        compared = _compared(drawn, metric["higher_is_better"])
        lines.append(f"{as_text(drawn.title)}: **{drawn.mean:{number}}**, {compared}.")
    others = [r for row, r in plain.items() if row != "base" and r.mean is not None and not _sees_labels(row)]
    if others and metric["higher_is_better"] is not None:
        sign = 1 if metric["higher_is_better"] else -1
        best = max(others, key=lambda r: sign * (r.mean or 0.0))
        lines.append(
            f"The best row that sees no test label is {as_text(best.title)}: {best.mean:{number}}, "
            f"{_compared(best, metric['higher_is_better'])}."
        )
    return " ".join(lines)


def _compared(result: Result, higher_is_better: bool | None) -> str:
    """Better or worse than the base, and whether that may be chance."""
    if result.difference is None or result.p_holm is None or higher_is_better is None:
        return "not compared with the base"
    p = f"p {p_text(result.p_holm, equals=True)}"
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
