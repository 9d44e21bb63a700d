"""docs/your-own-images.md: its code and its params, run as they stand there (with fewer updates, on fewer images)."""

import contextlib
import json
import re
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from ruamel.yaml import YAML
from sklearn.datasets import load_digits

from ocd_core.artifacts import read_json
from ocd_core.cli import app
from ocd_core.errors import UserError
from ocd_core.models import build_model
from ocd_core.store import OverfitStore
from ocd_core.weights import read_tensors
from stages import train_base
from tests.support.params import QUICK_PROBE
from tests.support.repository import REPO
from tests.support.toy import run_stages

PAGE = (REPO / "docs" / "your-own-images.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", PAGE, re.DOTALL)
FEWER: dict[str, dict[str, Any]] = {
    "data": {"train_size": 40, "val_size": 20, "test_size": 20},
    "base": {"epochs": 1},
    "layer": {"probe": QUICK_PROBE},
    "scoring": {"samples": 4, "draws": 10},
    "diffusion": {"updates": 20, "validate_every": 10},
    "scale": {"updates": 20, "validate_every": 10},
    "tuning": {"updates": 4, "lrs": [1e-3], "validate_every": 2},
    "evaluate": {"rows": ["base", "neighbour", "ocd", "bound"], "draws": [2], "bootstrap": 100},
}


def blocks(language: str) -> list[str]:
    return [text for kind, text in BLOCKS if kind == language]


def read(text: str) -> dict[str, Any]:
    found: dict[str, Any] = YAML(typ="safe", pure=True).load(text)
    return found


def write(values: dict[str, Any]) -> None:
    with Path("params/digits.yaml").open("w") as file:
        YAML(typ="safe", pure=True).dump(values, file)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the page's first block writes."""
    root = tmp_path_factory.mktemp("page")
    with contextlib.chdir(root):
        exec(blocks("python")[0], {})
    return root / "data" / "raw" / "digits"


@pytest.fixture
def params(images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The page's files in a folder where Python finds its network; the params, which are written there."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    Path("data/raw").mkdir(parents=True)
    Path("data/raw/digits").symlink_to(images)
    network = blocks("python")[1]
    name = re.match(r"# (\S+\.py)\n", network)
    assert name is not None
    Path(name[1]).write_text(network)
    values = read((REPO / "params" / "cifar10_small.yaml").read_text())
    changed = read(blocks("yaml")[0])
    assert {group: keys(values[group]) for group in changed} == {group: keys(changed[group]) for group in changed}
    values |= changed
    for group, changes in FEWER.items():
        values[group].update(changes)
    values["base"]["model"]["args"]["width"] = 2
    values["controls"]["fit"] = []
    Path("params").mkdir()
    write(values)
    yield values
    sys.modules.pop("resnet", None)


def keys(group: dict[str, Any]) -> set[str]:
    """Names of the params, so that the page's groups are complete; the model's arguments are its own."""
    return set(group)


def test_the_page_from_its_first_line_to_its_last(params: dict[str, Any], tmp_path: Path, capsys: Any) -> None:
    run_stages("report", "digits")
    run = tmp_path / "data" / "digits"
    summary = read_json(run / "prepared" / "summary.json")
    assert summary["classes"] == [f"digit{i}" for i in range(10)]
    # pixels and labels are those of scikit-learn
    images, labels = load_digits(return_X_y=True)
    known = {bytes(np.round(x * 255 / 16).astype(np.uint8)): int(y) for x, y in zip(images, labels, strict=True)}
    for split, count in (("train", 40), ("val", 20), ("test", 20)):
        tensors = read_tensors(run / "prepared" / f"{split}.safetensors")
        assert [known[bytes(x)] for x in tensors["image"].flatten(1).numpy()] == tensors["label"].tolist()
        assert len(tensors["label"]) == count
    store = OverfitStore(run / "seed0" / "rank1" / "overfit" / "train.zarr")
    assert store.attributes["layer"] == "fc"
    assert store.attributes["activation_read"] == "output of fc"
    assert store.schema.out_features == 10
    table = (tmp_path / "reports" / "digits" / "table.md").read_text()
    assert "OCD (one draw)" in table
    some = next((tmp_path / "data" / "raw" / "digits" / "test" / "digit3").iterdir())
    capsys.readouterr()
    with pytest.raises(SystemExit) as stop:
        app(["predict", "digits", str(some)])
    assert stop.value.code in (0, None)
    assert json.loads(capsys.readouterr().out)["base"]["class"] in range(10)
    # a trained network: the same weights from a file give the same base, without training
    trained = read_json(run / "seed0" / "base" / "metrics.json")
    weights = tmp_path / read(blocks("yaml")[1])["base"]["checkpoint"]
    weights.parent.mkdir()
    model = build_model(**params["base"]["model"])
    model.load_state_dict(read_tensors(run / "seed0" / "base" / "model.safetensors"))
    torch.save(model.state_dict(), weights)
    params["base"].update(read(blocks("yaml")[1])["base"])
    write(params)
    train_base.main("digits")
    given = read_json(run / "seed0" / "base" / "metrics.json")
    assert given["epochs"] == 0
    assert given["val_loss"] == pytest.approx(trained["val_loss"], rel=1e-6)
    # of another width: refused
    params["base"]["model"]["args"]["width"] = 3
    write(params)
    with pytest.raises(UserError, match="different architecture than ResNet18"):
        train_base.main("digits")


def test_the_network_is_resnet18(params: dict[str, Any]) -> None:
    """11.17 million weights for ten classes and 32x32 colour images, as He et al.'s layers give by hand."""
    model = build_model("resnet:ResNet18", {"classes": 10})
    wanted = 9 * 3 * 64 + 2 * 64
    for inside, outside in ((64, 64), (64, 128), (128, 256), (256, 512)):
        wanted += 9 * inside * outside + 3 * 9 * outside**2 + 4 * 2 * outside
        wanted += 0 if inside == outside else inside * outside + 2 * outside
    wanted += 512 * 10 + 10
    assert sum(p.numel() for p in model.parameters()) == wanted == 11_173_962
    assert model.eval()(torch.zeros(1, 3, 32, 32)).shape == (1, 10)


def test_a_damaged_image_of_the_users_folder_is_one_line(params: dict[str, Any], images: Path, tmp_path: Path) -> None:
    Path("data/raw/digits").unlink()
    shutil.copytree(images, "data/raw/digits")
    folder = Path("data") / "raw" / "digits" / "train" / "digit7"
    for bad in folder.iterdir():  # all, because some are not among the samples
        bad.write_bytes(bad.read_bytes()[:40])
    where = rf"^{re.escape(str(folder))}/[^/]+: the image cannot be decoded"
    with pytest.raises(UserError, match=where):
        run_stages("prepare", "digits")
    for bad in folder.iterdir():
        Image.new("L", (9, 8)).save(bad)
    with pytest.raises(UserError, match=r"an image of 8x9 pixels, but data\.height and data\.width say 8x8"):
        run_stages("prepare", "digits")
