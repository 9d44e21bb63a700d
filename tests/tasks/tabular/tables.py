"""Small tables, and params that read them."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ocd_core.tasks.tabular.params import TabularData
from ocd_core.tasks.tabular.task import Tabular


def tabular_data(**changes: Any) -> TabularData:
    """Params of a local folder with one file."""
    values: dict[str, Any] = {
        "source": "table", "path": "/nowhere", "train_files": ["rows.parquet"], "val_files": None, "test_files": None,
        "target": "y", "kind": "regression", "features": None, "categories": [], "group": None, "transform": "standard",
        "ranking_at": None, "train_size": None, "val_size": 20, "test_size": 30, "split_seed": 0,
    }  # fmt: skip
    return TabularData.model_validate(values | changes)


def task(**changes: Any) -> Tabular:
    return Tabular(tabular_data(**changes), "mlp", {"hidden": [5]})


def columns(count: int = 120) -> dict[str, list[Any]]:
    """Numbers with gaps, a category with gaps, a category of numbers, and a target of each kind."""
    rng = np.random.default_rng(0)
    a, b = rng.normal(3, 2, count), rng.normal(size=count)
    colour = rng.choice(["red", "green", "blue"], count)
    return {
        "a": a.tolist(),
        "b": [None if i % 7 == 0 else float(v) for i, v in enumerate(b)],
        "colour": [None if i % 11 == 0 else str(c) for i, c in enumerate(colour)],
        "floor": rng.integers(0, 3, count).tolist(),
        "owner": [i // 6 for i in range(count)],
        "y": (a + (colour == "red") + 0.1 * rng.normal(size=count)).tolist(),
        "stars": np.clip(np.round(a), 0, 5).tolist(),
        "kind": ["large" if v > 3 else "small" for v in a],
    }


def write(folder: Path, values: dict[str, list[Any]], name: str = "rows.parquet") -> Path:
    """A Parquet file in the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(values), folder / name)
    return folder
