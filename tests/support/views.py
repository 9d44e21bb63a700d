"""A run of view synthesis that is quick enough for a test."""

from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from ocd_core.artifacts import Artifacts
from ocd_core.params_files import read_yaml
from tests.support.repository import REPO
from tests.support.toy import STAGES


def views_run(root: Path, upto: str, change: Callable[[dict[str, Any]], Any] = lambda values: values) -> Artifacts:
    """tinynerf_demo with twelve pixels a side and a few updates, as task `views` in `root`; `change` of its params."""
    values = read_yaml(REPO / "params" / "tinynerf_demo.yaml")
    changes = {
        "data": {"size": 12, "train_views": 12, "test_views": 3, "depths": 4, "base_rays": 32, "rays_per_step": 32,
                 "rays_per_update": 32},
        "base": {"epochs": 2, "model": {"name": "tinynerf", "args": {"width": 8, "frequencies": 2,
                 "direction_frequencies": None, "background": "black"}}},
        "scoring": {"samples": 2, "draws": 10},
        "overfit": {"steps": 2},
        "diffusion": {"updates": 4, "validate_every": 2, "batch_size": 8, "embedding": 8,
                      "representation": {"name": "pca", "components": 3, "metric": "euclidean"}},
        "scale": {"updates": 4, "validate_every": 2},
        "evaluate": {"draws": [2], "bootstrap": 100},
    }  # fmt: skip
    for group, keys in changes.items():
        values[group].update(keys)
    values["diffusion"]["denoiser"].update(width=8, depth=1)
    values["controls"]["hypernetwork"].update(widths=[8], updates=2, validate_every=1)
    for row in ("regression", "hypernetwork_pretrained"):
        values["controls"][row].update(widths=[8], updates=2, lrs=[1e-3], validate_every=1)
    values["layer"]["probe"]["updates"] = 2
    values["controls"]["hypernetwork_pretrained"]["regression"].update(updates=2)
    values["controls"]["base_further"]["epochs"] = 1
    values["tuning"].update(updates=2, draws=2, lrs=[1e-3], batch_size=4, validate_every=1)
    (root / "params").mkdir()
    with (root / "params" / "views.yaml").open("w") as file:
        YAML().dump(change(values), file)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        for stage in STAGES[: STAGES.index(upto) + 1]:
            import_module(f"stages.{stage}").main("views")
    return Artifacts("views", root=root)
