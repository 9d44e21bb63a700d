"""Networks that a forged bundle makes huge are refused before they take memory."""

import resource
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from ocd_core import Predictor
from ocd_core.artifacts import Artifacts
from ocd_core.built_size import no_larger_than
from ocd_core.bundles.fetch import bundle_folder
from ocd_core.codes.condition import ConditionEncoder
from ocd_core.errors import UserError
from ocd_core.files import sha256_files
from ocd_core.network.loading import load_base_network
from ocd_core.provenance import write_manifest
from ocd_core.scale.network import ScaleNetwork
from ocd_core.weights import save_weights
from tests.bundles.support import edit_json, rehash
from tests.support.arrays import ArrayTask
from tests.support.params import scale_params

MOST_KB = 2**20  # of memory, more than before


@pytest.fixture
def bundle(tmp_path: Path) -> Path:
    return Path(shutil.copytree(bundle_folder("mnist5k-conv2"), tmp_path / "bundle"))


@pytest.fixture(autouse=True)
def _no_memory() -> Iterator[None]:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < MOST_KB


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"condition_sizes": [2**29, 0, 0]}, "holds .* numbers in .* tensors, but"),
        ({"condition_sizes": [2**45, 0, 0]}, "holds .* numbers in|too little memory for the network"),
        ({"params.denoiser.width": 2**16, "params.denoiser.depth": 1000}, "is many times as large"),
        ({"params.denoiser.width": 1, "params.denoiser.depth": 10**9}, "less than or equal to 1000"),
        ({"representation.args.components": 2**40}, "many times as large|too little memory"),
        ({"params.timesteps": 10**6, "params.embedding": 2**16}, "timesteps × embedding is"),
        ({"params.embedding": 2**16}, "many times as large|timesteps × embedding"),
        ({"condition_sizes": [0, 0, 0]}, "diffusion was written by another version: no part of I"),
        ({"condition_sizes": [-1, 2, 3]}, "diffusion was written by another version: a part of I"),
        ({"condition_sizes": [1]}, "another version: 1 sizes of the parts"),
        ({"condition_sizes": None}, "diffusion was written by another version"),
        ({"representation": []}, "diffusion was written by another version"),
        ({"representation.args": [1]}, "diffusion was written by another version"),
    ],
)
def test_a_config_is_compared_with_its_weights(bundle: Path, changes: dict[str, Any], words: str) -> None:
    for key, value in changes.items():
        edit_json(bundle / "diffusion" / "config.json", key, value)
    with pytest.raises(UserError, match=words):
        Predictor.from_pretrained(rehash(bundle))


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"condition_sizes": [2**29, 0, 0]}, "is many times as large"),
        ({"condition_sizes": "abc"}, "was written by another version"),
        ({"params.width": 10**9}, "was written by another version"),
    ],
)
def test_a_scale_network_too(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    ScaleNetwork(ConditionEncoder([3, 2, 1], 8)).save(tmp_path, scale_params(width=8))
    for key, value in changes.items():
        edit_json(tmp_path / "config.json", key, value)
    with pytest.raises(UserError, match=words):
        ScaleNetwork.load(tmp_path)


class Endless(nn.Module):
    """Each layer is small."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(1, 1) for _ in range(10**9))


@pytest.mark.parametrize("build", [Endless, lambda: nn.Linear(2**20, 2**20), lambda: nn.Linear(2**30, 2**30)])
def test_a_base_network_is_compared_with_its_weights(tmp_path: Path, build) -> None:
    class Huge(ArrayTask):
        def build_model(self) -> nn.Module:
            return build()

    run = Artifacts("toy", root=tmp_path)
    save_weights(nn.Linear(2, 2), run.base / "model.safetensors")
    write_manifest(run.base, {"stage": "train_base", "params": {}, "code": "", "inputs": {}}, sha256_files(run.base))
    with pytest.raises(UserError, match=r"model\.safetensors (holds 6 numbers in 2 tensors|describes)"):
        load_base_network(run, Huge())
    assert isinstance(nn.Linear(2, 2), nn.Linear)  # nothing counts any more


def test_what_is_replaced_at_once_and_lazy_layers_are_allowed() -> None:
    with no_larger_than([(3, 4)], Path("model.safetensors")):
        network = nn.Sequential(nn.Linear(1000, 1000), nn.LazyLinear(3))
        network[0] = nn.Linear(4, 3)
    with torch.no_grad():
        assert network(torch.zeros(2, 4)).shape == (2, 3)
