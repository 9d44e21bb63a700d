"""The table of an evaluation as a pandas DataFrame."""

from pathlib import Path
from typing import Any

from ocd_core.artifacts import read_json


def results_frame(table: Path) -> Any:
    """A DataFrame with one line per row of the table, and one column per metric.

    `difference`, `low`, `high` and `p` compare the row's first metric with the base's: the difference with its 95 %
    interval, and the probability of such a one by chance, corrected over the rows (Holm). Lines with `+T` or `+σ` are
    rows after the `temperature`, or with the deviation of Gaussian `noise`, that is best for them on validation. Rows
    that are missing are in `.attrs["absent"]`, {row: why}; remarks in `.attrs["remarks"]`.

    Args:
        table: `evaluation/table.json` of a run.
    """
    import pandas as pd

    found = read_json(table)
    first = found["metrics"][0]["name"]
    lines: dict[str, dict[str, Any]] = {}
    for r in found["results"]:
        suffix = " +T" if r["temperature"] is not None else " +σ" if r["noise"] is not None else ""
        line = lines.setdefault(r["row"] + suffix, {"title": r["title"] + suffix})
        line |= {name: r[name] for name in ("temperature", "noise") if r[name] is not None}
        line[r["metric"]] = r["mean"]
        if r["metric"] == first:
            compared = {"difference": r["difference"], "low": r["difference_low"], "high": r["difference_high"]}
            line |= {**compared, "p": r["p_holm"]}
    names = [metric["name"] for metric in found["metrics"]]
    frame = pd.DataFrame.from_dict(lines, orient="index")
    wanted = ("title", *names, "temperature", "noise", "difference", "low", "high", "p")
    columns = [name for name in wanted if name in frame]
    frame = frame[columns].rename_axis(index="row")
    frame.attrs |= {
        "absent": {absent["row"]: absent["why"] for absent in found["absent"]},
        "remarks": found["remarks"],
        "layer": found["layer"],
    }
    return frame
