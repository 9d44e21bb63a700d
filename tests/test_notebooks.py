"""The notebooks run from top to bottom, with fewer updates, and are kept without outputs."""

import os
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from tests.calls.support import QUICK
from tests.support.params import QUICK_PROBE
from tests.support.repository import REPO, files_in

NOTEBOOKS = files_in("notebooks", ".ipynb")
_SHORT = {
    **QUICK,
    "layer": {"select": "0", "probe": QUICK_PROBE},
    "evaluate": {"rows": ["base", "ocd", "ocd_ensemble", "bound"], "draws": [3], "bootstrap": 100},
}


def code_cells(notebook: Any) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def test_there_are_two() -> None:
    assert {path.name for path in NOTEBOOKS} == {"digits.ipynb", "table.ipynb"}


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_it_is_kept_without_outputs(path: Path) -> None:
    notebook = nbformat.read(path, as_version=4)
    assert all(not cell.outputs and cell.execution_count is None for cell in code_cells(notebook))
    assert len([cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", [])]) == 1


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.name)
def test_it_runs(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each cell, in a kernel of its own; only the options and the number of samples are smaller than a user's."""
    for name in ("IPYTHONDIR", "JUPYTER_RUNTIME_DIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR"):
        monkeypatch.setenv(name, str(tmp_path / name))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(REPO), os.environ.get("PYTHONPATH", "")]))
    notebook = nbformat.read(path, as_version=4)
    place = next(k for k, cell in enumerate(notebook.cells) if "parameters" in cell.metadata.get("tags", []))
    notebook.cells.insert(place + 1, nbformat.v4.new_code_cell(f"options = {_SHORT!r}"))
    (tmp_path / "work").mkdir()
    NotebookClient(
        notebook, timeout=250, kernel_name="python3", resources={"metadata": {"path": str(tmp_path / "work")}}
    ).execute()
    shown = [output for cell in code_cells(notebook) for output in cell.outputs]
    kinds = [set(output.get("data", {})) for output in shown]
    pictures = sum("ocd.plot(" in cell.source or "coverage_figure(" in cell.source for cell in code_cells(notebook))
    assert sum("image/png" in kind for kind in kinds) >= pictures >= 1
    assert any("text/html" in kind for kind in kinds)  # the table
    runs = tmp_path / "work" / "runs"
    assert len(list(runs.glob("*/data/*/seed0/rank1/evaluation/table.json"))) == 1
