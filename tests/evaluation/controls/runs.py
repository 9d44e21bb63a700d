"""Toy runs with all rows: layer `head` (factored, two replicas) or `embed` (three positions a sample, pca)."""

from pathlib import Path

import pytest

from ocd_core.artifacts import Artifacts
from tests.toy import run_stages, write_toy_params

GROUPS = {
    "head": {"layer": {"select": "head"}, "overfit": {"memory_mb": 8, "shard_mb": 1, "replicas": 2}},
    "embed": {
        "layer": {"select": "embed"},
        "diffusion": {"representation": {"name": "pca", "components": 5}, "updates": 40, "batch_size": 16,
                      "validate_every": 20, "embedding": 16,
                      "denoiser": {"name": "mlp", "width": 16, "depth": 1, "multipliers": [1], "dropout": 0.0}},
    },
}  # fmt: skip


def toy_run(root: Path, layer: str, upto: str) -> Artifacts:
    write_toy_params(root, **GROUPS[layer])
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(root)
        run_stages(upto)
    return Artifacts("toy", root=root)
