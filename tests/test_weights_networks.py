import json

import pytest
import torch
from torch import nn

from ocd_core.errors import UserError
from ocd_core.weights import load_network, load_strictly, save_network


def write(folder, **config):
    state = {"a": torch.arange(6.0).view(2, 3).T, "b": torch.tensor(3.5, dtype=torch.float64)}
    save_network(folder, "toy", state, {"size": 3, **config})
    return state


def test_round_trip(tmp_path):
    state = write(tmp_path / "new" / "folder")
    tensors, config = load_network(tmp_path / "new" / "folder", "toy")
    assert {k: v.tolist() for k, v in tensors.items()} == {k: v.tolist() for k, v in state.items()}
    assert tensors["b"].dtype == torch.float64
    assert config["size"] == 3
    assert sorted(p.name for p in (tmp_path / "new" / "folder").iterdir()) == ["config.json", "model.safetensors"]


def test_missing_damaged_and_foreign_files_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"config.json is missing"):
        load_network(tmp_path, "toy")
    write(tmp_path)
    with pytest.raises(UserError, match="holds a toy network, not diffusion"):
        load_network(tmp_path, "diffusion")
    weights = tmp_path / "model.safetensors"
    whole = weights.read_bytes()
    for damaged in (whole[:-5], whole[:-1] + bytes([whole[-1] ^ 1]), b""):
        weights.write_bytes(damaged)
        with pytest.raises(UserError, match="truncated or replaced"):
            load_network(tmp_path, "toy")
    weights.write_bytes(whole)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(UserError, match=r"config.json is damaged"):
        load_network(tmp_path, "toy")
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(UserError, match="no network of ours"):
        load_network(tmp_path, "toy")
    write(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "format": 99}))
    with pytest.raises(UserError, match="format 99"):
        load_network(tmp_path, "toy")


def test_an_interrupted_save_leaves_no_network_that_looks_complete(tmp_path, monkeypatch):
    write(tmp_path)
    import safetensors.torch

    def dies(tensors, path):
        path.write_bytes(b"half")
        raise KeyboardInterrupt

    monkeypatch.setattr(safetensors.torch, "save_file", dies)
    with pytest.raises(KeyboardInterrupt):
        write(tmp_path)
    with pytest.raises(UserError, match=r"config.json is missing"):
        load_network(tmp_path, "toy")


def test_strict_loading_names_what_does_not_match(tmp_path):
    net = nn.Linear(3, 2)
    good = {"weight": torch.ones(2, 3), "bias": torch.zeros(2)}
    load_strictly(net, good, tmp_path)
    assert net.weight.sum() == 6
    for bad, message in (
        ({"weight": good["weight"]}, "lacks 'bias'"),
        ({**good, "extra": torch.ones(1)}, "unknown tensor 'extra'"),
        ({**good, "weight": torch.ones(3, 2)}, r"'weight' has shape \(3, 2\), expected \(2, 3\)"),
    ):
        with pytest.raises(UserError, match=message):
            load_strictly(net, bad, tmp_path)
