"""Make the bundle that comes with the package, `ocd_core/bundles/mnist5k-conv2`, and the numbers that its test expects.

    python -m experiments.bundled     # two minutes on one core; the files are then committed

It is the task mnist5k with the layer in which OCD gains (docs/choices.md), and a denoiser small enough for a wheel.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import typer

from experiments import run
from ocd_core.artifacts import Artifacts, read_table, write_json
from ocd_core.errors import UserError
from ocd_core.params_files import params_path, read_yaml
from ocd_core.presets.overrides import group_of
from ocd_core.report.run_export import export_run

app = typer.Typer(add_completion=False)
ROOT = Path(__file__).parents[1]
NAME = "mnist5k-conv2"
SETTINGS: dict[str, Any] = {
    "layer.select": "conv2",
    "layer.candidates": {"names": ["conv2"], "kinds": ["conv"]},
    "diffusion.representation": {"name": "pca", "components": 20, "metric": "euclidean"},
    "diffusion.denoiser.width": 64,
    "diffusion.embedding": 32,
    "sampling.steps": 10,
    "controls.fit": ["base_further"],
    "evaluate.rows": ["base", "base_further", "ocd", "ocd_mean_network", "ocd_ensemble", "bound"],
}
STAGES = ("code", "prepare", "train_base", "score_layers", "overfit", "train_diffusion", "train_scale",
          "tune_diffusion", "train_controls", "evaluate")  # fmt: skip
EXPECTED = ROOT / "tests" / "bundles" / f"{NAME}.json"
SAMPLES = 40
_KEYS = ("base_cross_entropy", "ocd_cross_entropy", "ocd_ensemble_cross_entropy")


@app.command()
def main() -> None:
    """Run the pipeline in a folder of its own, export the run, and keep the losses of its first test samples."""
    from ruamel.yaml import YAML

    values = read_yaml(params_path("mnist5k", ROOT))
    for key, value in SETTINGS.items():
        group, name = group_of(values, key)
        group[name] = value
    dest = ROOT / "ocd_core" / "bundles" / NAME
    with tempfile.TemporaryDirectory() as folder:
        artifacts = Artifacts(NAME, root=Path(folder))
        path = params_path(NAME, folder)
        path.parent.mkdir()
        YAML().dump(values, path)
        for stage in STAGES:
            subprocess.run(
                [sys.executable, "-m", f"stages.{stage}", "--task", NAME],
                cwd=folder,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                check=True,
            )
        export_run(artifacts.rank_dir, f"{folder}/bundle")
        rows = read_table(artifacts.evaluation / "samples.tsv")[:SAMPLES]
        if dest.exists():
            shutil.rmtree(dest)
        shutil.move(f"{folder}/bundle", dest)
    if [int(row["sample_id"]) for row in rows] != list(range(SAMPLES)):
        raise UserError("the evaluation's first rows are not its first samples")
    write_json(EXPECTED, {key: [float(row[key]) for row in rows] for key in _KEYS})


if __name__ == "__main__":
    run(app)
