"""The table as a DataFrame."""

from pathlib import Path
from typing import Any

import pytest

from ocd_core.artifacts import write_json
from ocd_core.calls.results import results_frame


def result(row: str, metric: str, mean: float, **more: Any) -> dict[str, Any]:
    empty = dict.fromkeys(("temperature", "noise", "difference", "difference_low", "difference_high", "p_holm"))
    return {"row": row, "title": row.title(), "metric": metric, "mean": mean, **empty, **more}


def test_each_row_has_a_line_and_each_metric_a_column(tmp_path: Path) -> None:
    compared = {"difference": -0.1, "difference_low": -0.2, "difference_high": 0.1, "p_holm": 0.4}
    write_json(tmp_path / "table.json", {
        "metrics": [{"name": "loss"}, {"name": "accuracy"}],
        "results": [
            result("base", "loss", 0.5), result("base", "accuracy", 90.0),
            result("ocd", "loss", 0.4, **compared), result("ocd", "accuracy", 91.0, difference=1.0),
            result("ocd", "loss", 0.3, temperature=1.5),
        ],
        "absent": [{"row": "tent", "status": "left out", "why": "there are no classes"}],
        "remarks": ["toy"], "layer": "fc1",
    })  # fmt: skip
    frame = results_frame(tmp_path / "table.json")
    assert list(frame.index) == ["base", "ocd", "ocd +T"]
    assert list(frame.columns) == ["title", "loss", "accuracy", "temperature", "difference", "low", "high", "p"]
    assert frame.loc["ocd", ["loss", "accuracy", "difference", "p"]].tolist() == [0.4, 91.0, -0.1, 0.4]
    assert frame.loc["ocd +T", "title"] == "Ocd +T"
    assert frame["temperature"].dropna().to_dict() == {"ocd +T": 1.5}
    assert frame.loc["base", "loss"] == pytest.approx(0.5)
    assert frame.attrs == {"absent": {"tent": "there are no classes"}, "remarks": ["toy"], "layer": "fc1"}
