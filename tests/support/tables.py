"""Tables of runs as the stage `evaluate` writes them, with numbers of one's choice."""

from typing import Any

from ocd_core.artifacts import Artifacts, write_json
from ocd_core.evaluation.result import Result
from ocd_core.files import sha256_files
from ocd_core.provenance import MANIFEST, write_manifest

ERROR = {"name": "rmse", "higher_is_better": False, "unit": "", "decimals": 3}


def result(row: str, mean: float, **changes: Any) -> dict[str, Any]:
    """A result of a row that is compared with a base of mean 0.5."""
    values = {
        "row": row, "title": f"the {row}", "metric": "rmse", "mean": mean, "temperature": None, "noise": None,
        "seeds": 1, "sd_over_seeds": None, "n": 20, "spread_over_samples": 0.3, "low": mean - 0.1, "high": mean + 0.1,
        "difference": mean - 0.5, "difference_low": mean - 0.6, "difference_high": mean - 0.4, "z": -2.0, "p": 0.04,
        "p_holm": 0.04, "gap_closed": 0.25, "seconds": None, "flops": 100, "fit_flops": 1000, "preset": "default",
        "chosen_on": "train and val",
    }  # fmt: skip
    if row == "base":
        compared = ("difference", "difference_low", "difference_high", "z", "p", "p_holm")
        values |= {**dict.fromkeys(compared), "gap_closed": 0.0}
    return Result(**{**values, **changes}).model_dump()


def table(**changes: Any) -> dict[str, Any]:
    """A table of two rows."""
    return {
        "task": "toy", "seed": 0, "rank": 1, "layer": "head", "metrics": [ERROR],
        "results": [result("base", 0.5), result("ocd", 0.4)],
        "absent": [{"row": "ocd_gain", "status": "left out", "why": "it is a test"}],
        "remarks": ["A remark."], "bound_parts": None, **changes,
    }  # fmt: skip


def write_table(run: Artifacts, values: dict[str, Any], config: dict[str, Any] | None = None) -> None:
    """A run's folder `evaluation` with this table."""
    folder = run.evaluation
    (folder / MANIFEST).unlink(missing_ok=True)
    write_json(folder / "table.json", values)
    if config is not None:
        write_json(folder / "config.json", config)
    made = {"stage": "evaluate", "params": {}, "code": "", "inputs": {}}
    write_manifest(folder, made, sha256_files(folder))
