import json
import math
import pickle
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from ocd_core.errors import UserError
from ocd_core.models.lenet5 import LeNet5
from ocd_core.models.mlp import MLP
from ocd_core.weights import (
    load_network,
    load_strictly,
    load_weights,
    read_tensors,
    save_network,
    save_tensors,
    save_weights,
)


def network(seed: int = 0) -> nn.Module:
    """Parameters, buffers (of int64 too) and a tied weight."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 4), nn.Linear(4, 4))
        model[3].weight = model[2].weight
        model[1].running_mean.normal_()
    return model


def same(a: nn.Module, b: nn.Module) -> bool:
    left, right = a.state_dict(), b.state_dict()
    return list(left) == list(right) and all(torch.equal(left[k], right[k]) for k in left)


def test_what_is_saved_is_loaded(tmp_path: Path) -> None:
    path = tmp_path / "new" / "model.safetensors"
    save_weights(network(0), path)
    other = network(1)
    assert not same(network(0), other)
    load_weights(other, path)
    assert same(network(0), other)
    assert [p.name for p in path.parent.iterdir()] == ["model.safetensors"]


@settings(max_examples=20)
@given(
    shapes=st.lists(st.lists(st.integers(0, 3), max_size=3), min_size=1, max_size=4),
    dtype=st.sampled_from([torch.float32, torch.float64, torch.int64, torch.uint8]),
)
def test_tensors_round_trip_with_equal_bytes(
    tmp_path_factory: pytest.TempPathFactory, shapes: list[list[int]], dtype: torch.dtype
) -> None:
    folder = tmp_path_factory.mktemp("round")
    tensors = {f"t{i}": torch.arange(math.prod(shape)).reshape(shape).to(dtype) for i, shape in enumerate(shapes)}
    save_tensors(tensors, folder / "a")
    save_tensors(dict(reversed(tensors.items())), folder / "b")
    found = read_tensors(folder / "a")
    assert set(found) == set(tensors)
    assert all(found[k].dtype == dtype and torch.equal(found[k], tensors[k]) for k in tensors)
    assert (folder / "a").read_bytes() == (folder / "b").read_bytes()


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.safetensors"
    save_tensors({"a": torch.ones(2)}, path)
    before = path.read_bytes()

    def half(_tensors: object, file: Path) -> None:
        file.write_bytes(before[:20])
        raise OSError("disk full")

    monkeypatch.setattr("safetensors.torch.save_file", half)
    with pytest.raises(OSError, match="disk full"):
        save_tensors({"a": torch.zeros(2)}, path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("wrapper", [None, "state_dict", "model"])
def test_torch_files_of_tensors_are_read(tmp_path: Path, wrapper: str | None) -> None:
    path = tmp_path / "model.pth"
    weights = network(0).state_dict()
    torch.save(weights if wrapper is None else {wrapper: weights, "epoch": 3}, path)
    other = network(1)
    load_weights(other, path)
    assert same(network(0), other)


class Trap:
    """Runs code when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, tuple[Path]]:
        return (Path.touch, (self.path,))


@pytest.mark.parametrize("zipped", [True, False])
def test_pickled_code_never_runs(tmp_path: Path, zipped: bool) -> None:
    mark = tmp_path / "ran"
    path = tmp_path / "trap.pth"
    if zipped:
        torch.save({"weight": Trap(mark)}, path)
    else:
        path.write_bytes(pickle.dumps({"weight": Trap(mark)}, protocol=2))
    with pytest.raises(UserError, match=r"trap\.pth.*tensors alone"):
        load_weights(network(), path)
    assert not mark.exists()


def test_another_architecture_is_named(tmp_path: Path) -> None:
    path = tmp_path / "mlp.safetensors"
    save_weights(MLP(3, 2, hidden=[5]), path)
    with pytest.raises(UserError) as error:
        load_weights(LeNet5(), path)
    text = str(error.value)
    assert "\n" not in text
    assert "mlp.safetensors" in text
    assert "LeNet5" in text
    assert "missing conv1.weight, conv1.bias, conv2.weight and 7 more" in text
    assert "unexpected layers.0.bias, layers.0.weight, layers.1.bias and 1 more" in text


def test_mis_shaped_tensors_are_named_with_both_shapes(tmp_path: Path) -> None:
    path = tmp_path / "model.pth"
    torch.save(LeNet5(classes=10).state_dict(), path)
    model = LeNet5(classes=7)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    with pytest.raises(UserError, match=r"of another shape fc2\.weight \(\(10, 84\) in the file, \(7, 84\) in the net"):
        load_weights(model, path)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_broken_weights_are_refused(tmp_path: Path, value: float) -> None:
    model = MLP(3, 2, hidden=[5])
    model.layers[1].bias.data[0] = value
    save_weights(model, tmp_path / "m.safetensors")
    with pytest.raises(UserError, match=r"NaN or infinite weights in layers\.1\.bias"):
        load_weights(MLP(3, 2, hidden=[5]), tmp_path / "m.safetensors")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "does not exist"),
        (b"", "neither safetensors nor a readable torch file|tensors alone"),
        (b"not weights at all, but long enough", "tensors alone|neither"),
        (b"\xff\x00\x00\x00\x00\x00\x00\x00{broken", "not a readable safetensors file"),
    ],
)
def test_unreadable_files(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "file"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=message) as error:
        load_weights(network(), path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("values", [[1, 2], {"epoch": 3}, {}, torch.ones(2)])
def test_torch_files_without_weights(tmp_path: Path, values: object) -> None:
    torch.save(values, tmp_path / "file.pth")
    with pytest.raises(UserError, match="without weights"):
        load_weights(network(), tmp_path / "file.pth")


def test_truncated_files(tmp_path: Path) -> None:
    for name, write in (("a.safetensors", save_weights), ("a.pth", lambda m, p: torch.save(m.state_dict(), p))):
        path = tmp_path / name
        write(network(), path)
        path.write_bytes(path.read_bytes()[:-40])
        with pytest.raises(UserError, match=name):
            load_weights(network(), path)


# --- a network as a folder


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
    with pytest.raises(UserError, match="no trained network"):
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


def test_a_saved_network_may_have_tied_weights(tmp_path: Path) -> None:
    save_network(tmp_path / "folder", "kind", network(0).state_dict(), {"rows": 1})
    state, config = load_network(tmp_path / "folder", "kind")
    assert config["rows"] == 1
    other = network(1)
    other.load_state_dict(state)
    assert same(network(0), other)


def test_a_config_of_thousands_of_levels_is_damaged(tmp_path: Path) -> None:
    save_network(tmp_path, "kind", {"a": torch.zeros(1)}, {})
    (tmp_path / "config.json").write_text("[" * 100_000)
    with pytest.raises(UserError, match=r"config\.json is damaged"):
        load_network(tmp_path, "kind")
