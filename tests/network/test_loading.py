"""A run's base network: as it was saved, cut at the layer of its rank, or refused with the stage that mends it."""

from pathlib import Path

import pytest
import torch
from torch import nn

from ocd_core.artifacts import Artifacts, write_json
from ocd_core.errors import UserError
from ocd_core.files import sha256_files
from ocd_core.models.mlp import MLP
from ocd_core.network.loading import load_base_network, load_cut_model
from ocd_core.provenance import write_manifest
from ocd_core.weights import save_weights
from tests.support.arrays import ArrayTask


class Small(ArrayTask):
    def build_model(self) -> nn.Module:
        return MLP(3, 2, [4])


class Wide(ArrayTask):
    def build_model(self) -> nn.Module:
        return MLP(3, 2, [5])


@pytest.fixture
def model() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(3)
        return MLP(3, 2, [4])


@pytest.fixture
def run(tmp_path: Path, model: nn.Module) -> Artifacts:
    """A base network with two layers to choose from, at the second rank."""
    run = Artifacts("toy", rank=2, root=tmp_path)
    save_weights(model, run.base / "model.safetensors")
    made = {"stage": "train_base", "params": {}, "code": "", "inputs": {}}
    write_json(run.base / "manifest.json", {**made, "files": sha256_files(run.base)})
    write_json(run.layers / "layers.json", {"used": {"1": "layers.0", "2": "layers.1"}})
    write_manifest(run.layers, {**made, "stage": "score_layers"}, sha256_files(run.layers))
    return run


def test_the_saved_weights_are_loaded(run: Artifacts, model: nn.Module) -> None:
    found = load_base_network(run, Small()).state_dict()
    assert all(torch.equal(found[name], value) for name, value in model.state_dict().items())


def test_the_cut_is_at_the_layer_of_the_rank(run: Artifacts, model: nn.Module) -> None:
    cut = load_cut_model(run, Small(), precision="float32")
    assert (cut.layer_name, cut.dtype) == ("layers.1", torch.float32)
    x = torch.randn(4, 3)
    torch.testing.assert_close(cut.forward(cut.prefix((x,)))[1], model(x).detach())
    first = load_cut_model(Artifacts("toy", root=run.root), Small())
    assert (first.layer_name, first.dtype) == ("layers.0", torch.float64)


def test_a_rank_without_a_layer(run: Artifacts) -> None:
    with pytest.raises(UserError, match=r"layers\.json has no layer of rank 3 \(there are 2\); lower the rank"):
        load_cut_model(Artifacts("toy", rank=3, root=run.root), Small())


def test_another_architecture(run: Artifacts) -> None:
    with pytest.raises(UserError, match="belongs to a different architecture than MLP"):
        load_base_network(run, Wide())


def test_damaged_weights(run: Artifacts) -> None:
    path = run.base / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-1] + b"\0")
    with pytest.raises(UserError, match=r"model\.safetensors is damaged"):
        load_base_network(run, Small())


@pytest.mark.parametrize(("name", "stage"), [("base", "train_base"), ("layers", "score_layers")])
def test_what_is_missing_names_its_stage(run: Artifacts, name: str, stage: str) -> None:
    run.path(name).rename(run.root / "away")
    with pytest.raises(UserError, match=rf"{name} is missing; run 'dvc repro' or 'python -m stages\.{stage} "):
        load_cut_model(run, Small())
