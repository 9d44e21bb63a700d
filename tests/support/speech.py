"""A run of speech separation that is quick enough for a test."""

from pathlib import Path
from typing import Any

from ocd_core.artifacts import Artifacts
from ocd_core.params_files import read_yaml
from tests.support.repository import REPO
from tests.support.runs import run_of
from tests.tasks.speech.recordings import NETWORK, SOURCES, write_folder

LAST = "separator.rnn_model.cols_grnn.1.block_projection"


def speech_params(folder: Path) -> dict[str, Any]:
    """The params of speech_small for two voices, the small network of the tests and a few updates."""
    values = read_yaml(REPO / "params" / "speech_small.yaml")
    changes = {
        "data": {"path": str(folder), "sources": SOURCES, "train_seconds": 0.15, "train_part": "train",
                 "val_part": "dev", "test_part": "test"},
        "base": {"epochs": 2, "model": {"name": "gated_lstm", "args": NETWORK}},
        "layer": {"select": LAST, "candidates": {"names": [LAST, "separator.rnn_model.rows_grnn.0.rnn_proj"],
                                                 "kinds": ["linear"]}},
        "scoring": {"samples": 2, "draws": 10},
        "diffusion": {"updates": 4, "validate_every": 2, "batch_size": 8, "embedding": 8,
                      "representation": {"name": "pca", "components": 3, "metric": "euclidean"}},
        "scale": {"updates": 4, "validate_every": 2},
        "evaluate": {"draws": [2], "bootstrap": 100},
    }  # fmt: skip
    for group, keys in changes.items():
        values[group].update(keys)
    values["diffusion"]["denoiser"].update(width=8, depth=1)
    values["layer"]["probe"]["updates"] = 2
    values["tuning"].update(updates=2, lrs=[1e-3], validate_every=1, draws=2)
    controls = values["controls"]
    for row in ("regression", "hypernetwork", "hypernetwork_pretrained"):
        controls[row].update(widths=[8], lrs=[1e-3], updates=2, validate_every=1)
    controls["hypernetwork_pretrained"]["regression"]["updates"] = 2
    controls["base_further"]["epochs"] = 1
    return values


def speech_run(root: Path, lengths: tuple[int, ...] = (1600,), **data: Any) -> Artifacts:
    """All stages of speech_small on mixtures of two voices; `data` changes its group of params."""
    folder = write_folder(root / "mixtures", lengths=lengths)
    values = speech_params(folder)
    values["data"].update(data)
    return run_of(root, "speech", values)
